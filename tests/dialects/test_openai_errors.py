"""The OpenAI images API where something is wrong: its errors, repetitions, names and keys."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from tests.support.openai_api import (
    DESCRIBES,
    HELD,
    KEY,
    active,
    client,
    error_of,
    noise,
    png,
    post,
)
from tests.support.service import Service, eventually, running

# ---- errors -----------------------------------------------------------------------------------

IMAGE = ("image", ("a", png(noise()), "image/png"))

WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"json": {}}, 400, "prompt"),
    ({"json": {"prompt": ""}}, 400, "prompt"),
    ({"json": {"prompt": "a", "n": 0}}, 400, "n"),
    ({"json": {"prompt": "a", "size": "big"}}, 400, "size"),
    ({"json": {"prompt": "a", "size": "65x64"}}, 400, "size"),
    ({"json": {"prompt": "a", "output_format": "gif"}}, 400, "output_format"),
    ({"json": {"prompt": "a", "loras": [{"name": "a", "weight": "x"}]}}, 400, "loras.0.weight"),
    ({"json": {"prompt": "a", "seed": "x"}}, 400, "seed"),
    ({"json": {"prompt": "a", "strength": 0.5}}, 400, "strength"),
    ({"json": {"prompt": "a", "stream": True, "partial_images": 4}}, 400, "partial_images"),
    ({"json": {"prompt": "a", "partial_images": 1}}, 400, "partial_images"),
    ({"json": {"prompt": "a", "model": "org/x"}}, 404, "model"),
]


@pytest.mark.parametrize(("body", "status", "param"), WRONG, ids=str)
def test_a_refusal_names_its_field(
    service: Service, body: dict[str, Any], status: int, param: str
) -> None:
    reply = service.request("POST", "/v1/images/generations", **body)
    assert reply.status_code == status
    assert error_of(reply)["param"] == param


@pytest.mark.parametrize(
    ("files", "param"),
    [
        ([], "image"),
        ([IMAGE, IMAGE], "image"),
        ([("image", ("a", b"no image"))], "image"),
        ([IMAGE, ("mask", ("a", b"no image"))], "mask"),
        ([IMAGE, ("mask", ("a", png(noise())))], "mask"),
    ],
)
def test_a_refused_image_is_named(service: Service, files: list[Any], param: str) -> None:
    files = files or [("other", ("a", b"text"))]
    reply = service.request("POST", "/v1/images/edits", data={"prompt": "a"}, files=files)
    assert reply.status_code == 400 and error_of(reply)["param"] == param


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/v1/nothing", {}, 404),
        ("GET", "/v1/images/generations", {}, 405),
        ("GET", "/v1/images/files/abc.png", {}, 404),
        ("POST", "/v1/images/generations", {"data": "{", "headers": {"Content-Type": "a/b"}}, 415),
        ("POST", "/v1/images/edits", {"json": {}}, 415),
        (
            "POST",
            "/v1/images/edits",
            {"data": b"x", "headers": {"Content-Type": "multipart/form-data"}},
            400,
        ),
        ("POST", "/v1/images/generations", {"json": [1]}, 400),
    ],
)
def test_other_errors_have_the_same_form(
    service: Service, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    reply = service.request(method, path, **options)
    assert reply.status_code == status, reply.text
    error_of(reply)


def test_a_failed_job_and_a_canceled_one(folder: Path) -> None:
    settings = {"SDE_PIPELINE": "tests.pipelines.raises:load"}
    with running(folder, "gateway", "gpu_worker", **settings) as service:
        with pytest.raises(openai.InternalServerError) as caught:
            client(service).images.generate(prompt="memory")
        assert "out of memory" in caught.value.message and caught.value.code == "job_failed"
        assert caught.value.response.headers["x-should-retry"] == "false"


def test_a_job_that_is_canceled_while_its_client_waits(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", **HELD) as service:
        errors: list[openai.APIStatusError] = []

        def generate() -> None:
            try:
                client(service).images.generate(prompt="a")
            except openai.APIStatusError as error:
                errors.append(error)

        thread = threading.Thread(target=generate)
        thread.start()
        (job,) = active(service, 1)
        service.request("DELETE", f"/image/jobs/{job['uuid']}")
        thread.join()
        assert [(error.status_code, error.code) for error in errors] == [(410, "job_canceled")]


# ---- busy, retries, idempotency ---------------------------------------------------------------


def test_a_full_queue_is_429_with_when_to_come_again(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_QUEUE_SIZE="1", **HELD) as service:
        threads = [threading.Thread(target=post, args=(service, text)) for text in "ab"]
        for count, thread in enumerate(threads, 1):
            thread.start()
            active(service, count)
        with pytest.raises(openai.RateLimitError) as caught:
            client(service).images.generate(prompt="c")
        assert caught.value.code == "rate_limit_exceeded"
        assert int(caught.value.response.headers["Retry-After"]) >= 1
        assert caught.value.response.headers["x-should-retry"] == "true"
        service.release()
        for thread in threads:
            thread.join()


def test_a_repeated_request_joins_its_job(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", **HELD) as service:
        with pytest.raises(openai.APITimeoutError):
            client(service, timeout=1.0).with_options(max_retries=1).images.generate(prompt="a")
        (job,) = active(service, 1)
        replies: list[requests.Response] = []

        def send(prompt: str, **headers: str) -> threading.Thread:
            thread = threading.Thread(
                target=lambda: replies.append(post(service, prompt, **headers))
            )
            thread.start()
            return thread

        threads = [send("b"), send("c")]
        active(service, 3)
        threads += [send("b", **{"x-stainless-retry-count": "1"}), send("c")]
        active(service, 4)
        service.release()
        for thread in threads:
            thread.join()
        uuids = [reply.headers["x-sde-generation-uuid"] for reply in replies]
        assert len(uuids) == 4 and len(set(uuids)) == 3 and job["uuid"] not in uuids


def test_an_idempotency_key_gives_the_same_job(service: Service) -> None:
    replies = [post(service, "same", **{"Idempotency-Key": "one"}) for _ in range(2)]
    assert replies[0].json() == replies[1].json()
    other = post(service, "other", **{"Idempotency-Key": "one"})
    assert other.status_code == 409 and other.headers["x-should-retry"] == "false"
    error_of(other)


@pytest.mark.parametrize(("policy", "state"), [("finish", "succeeded"), ("cancel", "canceled")])
def test_a_client_says_what_becomes_of_its_job(folder: Path, policy: str, state: str) -> None:
    with running(folder, "gateway", "gpu_worker", **HELD) as service:
        with pytest.raises(openai.APITimeoutError):
            client(service, timeout=1.0).images.generate(
                prompt="a", extra_headers={"X-SDE-On-Disconnect": policy}
            )
        jobs = service.get("/image/jobs", params={"limit": 1}).json()
        if policy == "finish":
            service.release()
        uuid = jobs[0]["uuid"]
        eventually(lambda: service.job(uuid)["ended_time"], "it has ended")
        assert service.job(uuid)["state"] == state
        wrong = post(service, "a", **{"X-SDE-On-Disconnect": "stop"})
        assert wrong.status_code == 400 and "finish, cancel" in error_of(wrong)["message"]


# ---- models and keys --------------------------------------------------------------------------


def described(service: Service) -> None:
    """The worker has said what it can do, a moment after it is available."""
    eventually(lambda: service.get("/server/models").ok, "a description")


def test_models_and_aliases(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", **DESCRIBES) as service:
        described(service)
        sdk = client(service)
        names = [model.id for model in sdk.models.list()]
        assert names == ["demo", "plain", "slow", "broken"]
        for name in ("plain", "gpt-image-1", "dall-e-3"):
            assert sdk.models.retrieve(name).id == name
        for name in ("nothing", "org/name", "gpt-4"):
            with pytest.raises(openai.NotFoundError) as caught:
                sdk.models.retrieve(name)
            assert caught.value.code == "model_not_found" and caught.value.param == "model"
        reply = sdk.images.generate(prompt="a", model="plain", response_format="url")
        assert reply.data and service.lines()[-1]["model"] == "plain"
        sdk.images.generate(prompt="a", extra_body={"true_cfg_scale": 3})
        assert service.lines()[-1]["guidance_scale"] == 3.0
        with pytest.raises(openai.BadRequestError) as twice:
            sdk.images.generate(prompt="a", extra_body={"true_cfg_scale": 3, "guidance_scale": 2})
        assert twice.value.param == "true_cfg_scale"
        with pytest.raises(openai.BadRequestError) as refused:
            sdk.images.edit(image=png(noise()), prompt="a", model="plain")
        assert refused.value.param == "image"


def test_without_aliases_the_names_are_unknown(folder: Path) -> None:
    settings = {"SDE_OPENAI_ALIASES": "0", **DESCRIBES}
    with running(folder, "gateway", "gpu_worker", **settings) as service:
        described(service)
        with pytest.raises(openai.NotFoundError) as caught:
            client(service).images.generate(prompt="a", model="dall-e-3")
    assert caught.value.code == "model_not_found"


def test_with_a_key(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_KEYS=f"me:{KEY}", SDE_KEY=KEY) as service:
        for wrong in ("", "wrong"):
            reply = requests.get(
                f"{service.url}/v1/models", headers={"Authorization": f"Bearer {wrong}"}, timeout=60
            )
            assert reply.status_code == 401 and error_of(reply)["code"] == "invalid_api_key"
        azure = requests.get(f"{service.url}/v1/models", headers={"api-key": KEY}, timeout=60)
        assert azure.status_code == 200
        probe = requests.options(f"{service.url}/v1/images/generations", timeout=60)
        assert probe.ok
        reply_of_sdk = client(service, KEY).images.generate(prompt="a", response_format="url")
        url = (reply_of_sdk.data or [])[0].url or ""
        page = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        picture = requests.get(url, headers=page, timeout=60)
        assert picture.status_code == 200 and picture.content.startswith(b"\x89PNG")
        assert picture.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        elsewhere = requests.get(url, headers={"Host": "elsewhere.example"}, timeout=60)
        assert elsewhere.status_code == 421
        token = url.rpartition("/")[2]
        forged = token.replace(token[5], "A" if token[5] != "A" else "B", 1)
        assert requests.get(url.replace(token, forged), timeout=60).status_code == 404
        assert (folder / "url_secret").stat().st_mode & 0o777 == 0o600
        uuid = service.get("/image/jobs", params={"limit": 1}).json()[0]["uuid"]
        service.request("DELETE", "/image/generate", params={"generation_uuid": uuid})
        gone = requests.get(url, timeout=60)
        assert gone.status_code == 410 and error_of(gone)["code"] == "result_deleted"


def test_an_empty_key_is_none(service: Service) -> None:
    for value in ("Bearer ", "Bearer", "Basic "):
        reply = requests.get(
            f"{service.url}/v1/models", headers={"Authorization": value}, timeout=60
        )
        assert reply.status_code == 200


def test_an_address_behind_a_proxy(folder: Path) -> None:
    settings = {"SDE_TRUSTED_PROXIES": "127.0.0.1", "SDE_ALLOWED_HOSTS": "pictures.example"}
    settings |= {"SDE_KEYS": f"me:{KEY}", "SDE_KEY": KEY}
    forwarded = {
        "X-Forwarded-For": "192.0.2.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "pictures.example",
        "X-Forwarded-Prefix": "/sd",
    }
    with running(folder, "gateway", "gpu_worker", **settings) as service:
        url = post(service, "a", **forwarded).json()["data"][0]["url"]
        assert url.startswith("https://pictures.example/sd/v1/images/files/")
