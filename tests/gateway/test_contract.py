"""The seed's HTTP contract, to the letter, and what a wrong request is told."""

from __future__ import annotations

import base64
import io
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.service import Service, eventually, running

NEVER = "00000000-0000-4000-8000-000000000000"


def test_a_prompt_becomes_a_picture(service: Service) -> None:
    service.wait_available()
    reply = service.post({"prompt": 'ein Hündchen 🐶\n"quoted"', "seed": 5, "width": 128})
    assert reply.status_code == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert list(reply.json()) == ["generation_uuid"]
    record = service.result(reply.json()["generation_uuid"])
    assert list(record)[:5] == ["uuid", "prompt", "created_time", "errors", "data"]
    assert record["prompt"] == 'ein Hündchen 🐶\n"quoted"'
    assert record["errors"] == []
    assert record["seed"] == 5
    assert datetime.fromisoformat(record["created_time"]).tzinfo is not None
    image = Image.open(io.BytesIO(base64.b64decode(record["data"])))
    assert (image.format, image.size) == ("PNG", (128, 64))


def test_the_seed_that_was_drawn_is_told_and_gives_the_same_picture(service: Service) -> None:
    service.wait_available()
    first = service.result(service.submit("a"))
    service.wait_available()
    again = service.result(service.submit("a", seed=first["seed"]))
    assert again["pixels_sha256"] == first["pixels_sha256"]


def test_status_says_one_thing(service: Service) -> None:
    service.wait_available()
    assert service.get("/server/status").json() == {"is_available": True}


def test_all_results_come_as_one_array(service: Service) -> None:
    service.wait_available()
    uuid = service.submit("for the list")
    service.result(uuid)
    everything = service.get("/image/generate").json()
    assert [record["uuid"] for record in everything].count(uuid) == 1
    assert everything == service.lines()


def test_pending_and_unknown_are_empty_arrays(service: Service) -> None:
    assert service.get("/image/generate", params={"generation_uuid": NEVER}).json() == []


@pytest.mark.parametrize("wrong", ["", "x", "../../etc/passwd", NEVER + "0", "%00", "1,2"])
def test_what_is_no_uuid_is_refused(service: Service, wrong: str) -> None:
    reply = service.get("/image/generate", params={"generation_uuid": wrong})
    assert reply.status_code == 400
    assert "generation_uuid" in reply.json()["detail"]


WRONG_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({}, "prompt", "required"),
    ({"prompt": ""}, "prompt", "blank"),
    ({"prompt": "  \n"}, "prompt", "blank"),
    ({"prompt": None}, "prompt", "string"),
    ({"prompt": 5}, "prompt", "string"),
    ({"prompt": ["a"]}, "prompt", "string"),
    ({"prompt": "x" * 4001}, "prompt", "4000"),
    ({"prompt": "a\x00b"}, "prompt", "U+0000"),
    ({"prompt": "a\x1bb"}, "prompt", "U+001B"),
    ({"prompt": "a", "negative_prompt": "x" * 4001}, "negative_prompt", "4000"),
    ({"prompt": "a", "height": 513}, "height", "513"),
    ({"prompt": "a", "height": 0}, "height", "0"),
    ({"prompt": "a", "width": -64}, "width", "-64"),
    ({"prompt": "a", "width": 1_000_000}, "width", "1000000"),
    ({"prompt": "a", "width": True}, "width", "True"),
    ({"prompt": "a", "width": "512"}, "width", "'512'"),
    ({"prompt": "a", "width": 512.5}, "width", "512.5"),
    ({"prompt": "a", "num_inference_steps": 0}, "num_inference_steps", "0"),
    ({"prompt": "a", "num_inference_steps": -1}, "num_inference_steps", "-1"),
    ({"prompt": "a", "num_inference_steps": 100000}, "num_inference_steps", "100000"),
    ({"prompt": "a", "num_inference_steps": True}, "num_inference_steps", "True"),
    ({"prompt": "a", "guidance_scale": -1}, "guidance_scale", "-1"),
    ({"prompt": "a", "guidance_scale": 1e30}, "guidance_scale", "1e+30"),
    ({"prompt": "a", "guidance_scale": False}, "guidance_scale", "False"),
    ({"prompt": "a", "seed": -2}, "seed", "-2"),
    ({"prompt": "a", "seed": 2**53}, "seed", str(2**53)),
    ({"prompt": "a", "seed": 1.5}, "seed", "1.5"),
    ({"prompt": "a", "steps": 20}, "steps", "num_inference_steps"),
]


@pytest.mark.parametrize(("body", "field", "said"), WRONG_FIELDS)
def test_a_wrong_field_is_named_with_its_value(
    service: Service, body: dict[str, Any], field: str, said: str
) -> None:
    reply = service.post(body)
    assert reply.status_code == 422, reply.text
    assert reply.headers["Content-Type"] == "application/problem+json"
    problem = reply.json()
    assert problem["status"] == 422
    assert [fault["field"] for fault in problem["errors"]] == [field]
    assert field in problem["detail"] and said in problem["detail"]


WRONG_BODIES: list[tuple[bytes, int]] = [
    (b"", 400),
    (b"{", 400),
    (b"\x00", 400),
    (b'{"prompt": "a", "guidance_scale": NaN}', 400),
    (b'{"prompt": "a", "guidance_scale": Infinity}', 400),
    (b'{"prompt": "a", "guidance_scale": 1e999}', 400),
    (b'{"prompt": "\\ud800"}', 400),
    (b'{"prompt": "\xff"}', 400),
    (b'\xef\xbb\xbf{"prompt": "a"}', 400),
    (b'{"prompt": "a"} x', 400),
    (b"[" * 100_000, 400),
    (b"[" * 500 + b"]" * 500, 422),
    (b"[]", 422),
    (b"null", 422),
    (b'"prompt"', 422),
    (b'{"prompt": "' + b"x" * (10 << 20) + b'"}', 422),
]


@pytest.mark.parametrize(("body", "status"), WRONG_BODIES, ids=lambda v: ascii(v)[:40])
def test_a_broken_body_is_refused(service: Service, body: bytes, status: int) -> None:
    reply = service.post(body)
    assert reply.status_code == status, reply.text
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.json()["detail"]


@pytest.mark.parametrize(
    "kind", [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_only_json_is_taken(service: Service, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    reply = service.post(b'{"prompt": "a"}', headers=headers)
    assert reply.status_code == 415
    assert "Content-Type must be application/json" in reply.json()["detail"]


def test_a_content_type_may_have_any_case_and_parameters(service: Service) -> None:
    service.wait_available()
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    reply = service.post(b'{"prompt": "a"}', headers=headers)
    assert reply.status_code == 200
    service.result(reply.json()["generation_uuid"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("PUT", "/image/generate", 405),
        ("POST", "/server/status", 405),
        ("GET", f"/image/jobs/{NEVER}", 404),
        ("GET", "/image/jobs/not-a-uuid", 400),
        ("GET", "/image/generate?uuid=1", 400),
    ],
)
def test_other_mistakes_are_problems_too(
    service: Service, method: str, path: str, status: int
) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as raw:
        raw.sendall(f"{method} {path} HTTP/1.0\r\nContent-Length: 0\r\n\r\n".encode())
        reply = b"".join(iter(lambda: raw.recv(65536), b""))
    assert reply.startswith(f"HTTP/1.0 {status} ".encode())
    assert b"application/problem+json" in reply


def test_one_at_a_time_and_the_rest_are_told_when_to_come_back(folder: Path) -> None:
    with running(
        folder, "gateway", "gpu_worker", SDE_PIPELINE="tests.pipelines.slow:load"
    ) as service:
        with ThreadPoolExecutor(20) as pool:
            body = {"prompt": "a", "num_inference_steps": 20}
            replies = list(pool.map(lambda _: service.post(body), range(20)))
        accepted = [r.json()["generation_uuid"] for r in replies if r.status_code == 200]
        refused = [r for r in replies if r.status_code == 429]
        assert (len(accepted), len(refused)) == (1, 19)
        assert all(int(reply.headers["Retry-After"]) >= 1 for reply in refused)
        assert service.get("/server/status").json() == {"is_available": False}
        assert service.get("/image/generate", params={"generation_uuid": accepted[0]}).json() == []
        service.wait_step(accepted[0], 5)
        # 15 steps at 0.05 s are left at most: from the measured step time that is one second.
        assert service.post(body).headers["Retry-After"] == "1"
        assert service.result(accepted[0])["errors"] == []
        assert [record["uuid"] for record in service.lines()] == accepted
        service.wait_available()


def test_a_queue_holds_as_many_as_the_setting_says(folder: Path) -> None:
    with running(
        folder,
        "gateway",
        "gpu_worker",
        SDE_PIPELINE="tests.pipelines.slow:load",
        SDE_QUEUE_SIZE="2",
    ) as service:
        replies = [service.post({"prompt": str(i), "num_inference_steps": 5}) for i in range(5)]
        codes = [reply.status_code for reply in replies]
        assert codes[:3] == [200, 200, 200] and 429 in codes[3:]
        uuids = [r.json()["generation_uuid"] for r in replies if r.status_code == 200]
        waiting = service.job(uuids[2])
        assert waiting["state"] == "queued" and waiting["eta_s"] > 0
        for uuid in uuids:
            service.result(uuid)
        assert [record["uuid"] for record in service.lines()] == uuids


def test_a_worker_that_is_away_is_503_and_nothing_runs_later(folder: Path) -> None:
    with running(folder, "gateway") as service:
        reply = service.post({"prompt": "a"})
        assert reply.status_code == 503
        assert int(reply.headers["Retry-After"]) >= 1
        assert service.get("/server/status").json() == {"is_available": False}
        assert service.get("/server/workers").json()[0]["state"] == "unreachable"
        service.start("gpu_worker")
        service.wait_available()
        assert service.result(service.submit("the only one"))["prompt"] == "the only one"
        assert len(service.lines()) == 1


def test_progress_is_the_workers_own_steps(folder: Path) -> None:
    with running(
        folder, "gateway", "gpu_worker", SDE_PIPELINE="tests.pipelines.held:load"
    ) as service:
        uuid = service.submit(num_inference_steps=10)
        seen: list[int] = []

        def ended() -> bool:
            job = service.job(uuid)
            assert job["steps"] == 10
            seen.append(job["step"])
            if job["step"] == 1:
                service.release()
            return job["state"] == "succeeded"

        eventually(ended, "the job has succeeded")
        assert seen == sorted(seen) and 1 in seen and seen[-1] == 10
        # The job's state never runs ahead of its result.
        assert len(service.get("/image/generate", params={"generation_uuid": uuid}).json()) == 1
