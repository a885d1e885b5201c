"""The OpenAI images API as its clients use it: images, edits, variations, forms and streams."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests

from tests.support.openai_api import (
    DEMO,
    client,
    half_transparent,
    image_of,
    noise,
    png,
)
from tests.support.service import Service, running

# ---- generations ------------------------------------------------------------------------------


def test_an_image_as_base64(service: Service) -> None:
    reply = client(service).images.generate(
        prompt="a circle",
        n=2,
        size="128x64",
        response_format="b64_json",
        user="alice",
        extra_body={"seed": 7, "num_inference_steps": 2, "negative_prompt": "blur"},
    )
    assert reply.data is not None and len(reply.data) == 2 and reply.created > 1_700_000_000
    assert [image_of(each.b64_json).size for each in reply.data] == [(128, 64)] * 2
    assert all(each.url is None for each in reply.data) and reply.size == "128x64"
    job = service.get("/image/jobs", params={"limit": 1}).json()[0]
    records = service.results(job["uuid"])
    assert [record["seed"] for record in records] == [7, 8]
    assert records[0]["client_name"] == "alice" and records[0]["negative_prompt"] == "blur"
    stored = [base64.b64decode(record["data"]) for record in records]
    assert stored == [base64.b64decode(each.b64_json or "") for each in reply.data]


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (None, {"b64_json", "url"}),
        ("own", {"b64_json", "url"}),
        ("gpt-image-1", {"b64_json"}),
        ("dall-e-2", {"url"}),
        ("dall-e-3", {"url"}),
    ],
)
def test_an_answer_without_a_wish_is_what_programs_expect(
    service: Service, model: str | None, fields: set[str]
) -> None:
    body = {"prompt": "a", "model": model}
    reply = service.request("POST", "/v1/images/generations", json=body).json()
    assert set(reply["data"][0]) == fields
    for wish in ("url", "b64_json"):
        body["response_format"] = wish
        reply = service.request("POST", "/v1/images/generations", json=body).json()
        assert set(reply["data"][0]) == {wish}


@pytest.mark.parametrize(("name", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_each_format_in_both_forms(service: Service, name: Any, kind: str) -> None:
    reply = client(service).images.generate(prompt="a", output_format=name, output_compression=60)
    (entry,) = reply.data or []
    assert image_of(entry.b64_json).format == kind and reply.output_format == name
    assert entry.url is not None and entry.url.startswith(service.url)
    fetched = requests.get(entry.url, timeout=60)
    assert fetched.headers["Content-Type"] == f"image/{name}"
    assert fetched.content == base64.b64decode(entry.b64_json or "")


def test_the_asynchronous_client(service: Service) -> None:
    async def generate() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="x") as each:
            replies = await asyncio.gather(
                *(each.images.generate(prompt=text, model="gpt-image-1") for text in "abcd")
            )
        return [(reply.data or [])[0].b64_json for reply in replies]

    images = asyncio.run(generate())
    assert len(images) == 4 and all(image_of(text).size == (64, 64) for text in images)


def test_null_is_not_sent_and_unknown_names_are_reported(service: Service) -> None:
    body = {
        "prompt": "a",
        **dict.fromkeys(("n", "size", "model", "response_format", "user", "seed", "stream")),
        "quality": "high",
        "style": "vivid",
        "moderation": "low",
        "background": "transparent",
        "steps": 3,
        "aspect ratio\r\n": "1:1",
    }
    reply = service.request("POST", "/v1/images/generations/?api-version=1", json=body)
    assert reply.status_code == 200
    assert reply.headers["x-sde-ignored"] == "background, steps, aspect_ratio__"
    uuid = reply.headers["x-sde-generation-uuid"]
    record = service.results(uuid)[0]
    assert record["warnings"] == [
        f"{name}: this field has no effect"
        for name in ("'background'", "'steps'", r"'aspect ratio\r\n'")
    ]
    assert service.job(reply.headers["x-sde-generation-uuid"])["state"] == "succeeded"


def test_an_event_stream_ends_with_each_image(service: Service) -> None:
    stream = client(service).images.generate(
        prompt="a", n=2, stream=True, output_format="webp", model="gpt-image-1"
    )
    events = list(stream)
    assert [event.type for event in events] == ["image_generation.completed"] * 2
    assert image_of(events[0].b64_json).format == "WEBP" and events[0].size == "64x64"


# ---- edits and variations ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with its built-in model."""
    with running(tmp_path_factory.mktemp("d"), "gateway", "gpu_worker", **DEMO) as started:
        yield started


@pytest.mark.parametrize("own", [False, True])
def test_an_edit_changes_what_is_transparent_and_nothing_else(demo: Service, own: bool) -> None:
    source = noise()
    marked = png(half_transparent(source))
    files: dict[str, Any] = {"image": marked} if own else {"image": png(source), "mask": marked}
    reply = client(demo).images.edit(
        **files,
        prompt="a red circle",
        response_format="b64_json",
        extra_body={"num_inference_steps": "4", "strength": 0.9, "seed": 3},
    )
    result = image_of((reply.data or [])[0].b64_json).convert("RGB")
    left, right = (0, 0, 32, 64), (32, 0, 64, 64)
    assert result.crop(left).tobytes() == source.crop(left).tobytes()
    assert result.crop(right).tobytes() != source.crop(right).tobytes()


def test_an_opaque_image_with_alpha_is_no_mask(demo: Service) -> None:
    marked = png(noise().convert("RGBA"))
    reply = client(demo).images.edit(
        image=marked, prompt="a red circle", extra_body={"num_inference_steps": 4}
    )
    uuid = demo.get("/image/jobs", params={"limit": 1}).json()[0]["uuid"]
    record = demo.result(uuid)
    assert reply.data and record.get("image") and not record.get("mask_image")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # OpenAI itself retires them
def test_a_variation(demo: Service) -> None:
    size: Any = "64x64"
    reply = client(demo).images.create_variation(image=png(noise()), n=2, size=size)
    assert len(reply.data or []) == 2


FORMS: list[dict[str, Any]] = [
    {"files": [("image", ("blob", png(noise()), "application/octet-stream"))]},
    {"files": [("image[]", ("upload", png(noise()), "image/jpeg"))]},
    {"files": [("image", png(noise())), ("mask", ("", b""))]},
]


@pytest.mark.parametrize("form", FORMS)
def test_a_form_of_any_client(service: Service, form: dict[str, Any]) -> None:
    data = {"prompt": "a", "n": "2", "stream": "false", "seed": "5", "other": "x"}
    reply = service.request("POST", "/v1/images/edits", data=data, **form)
    assert reply.status_code == 200, reply.text
    assert len(reply.json()["data"]) == 2 and reply.headers["x-sde-ignored"] == "other"


def test_a_form_in_chunks(service: Service) -> None:
    prepared = requests.Request(
        "POST",
        f"{service.url}/v1/images/edits",
        data={"prompt": "a"},
        files={"image[]": png(noise())},
    ).prepare()
    content = prepared.body
    assert isinstance(content, bytes)
    reply = requests.post(
        prepared.url or "",
        data=(content[at : at + 1000] for at in range(0, len(content), 1000)),
        headers={"Content-Type": prepared.headers["Content-Type"]},
        timeout=60,
    )
    assert reply.status_code == 200, reply.text
