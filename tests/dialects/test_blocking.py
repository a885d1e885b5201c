"""A request that waits for its job holds no thread, and is answered however the job ends."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.attacks import rest, watched
from tests.support.service import Service, eventually, running

GATEWAY = "tests.support.gateway_with_blocking_route"
HELD = "tests.pipelines.held:load"


@pytest.fixture
def held(folder: Path) -> Iterator[Service]:
    """Jobs stay at their first step until the test lets them go on."""
    with running(folder, GATEWAY, "gpu_worker", SDE_PIPELINE=HELD, SDE_QUEUE_SIZE="300") as service:
        service.wait_available()
        yield service


def body(prompt: str = "a", steps: int = 1) -> bytes:
    return json.dumps({"prompt": prompt, "num_inference_steps": steps}).encode()


def request_bytes(prompt: str, version: str = "1.1", *headers: str) -> bytes:
    content = body(prompt)
    lines = (
        f"POST /v1/blocking HTTP/{version}",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        *headers,
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@contextlib.contextmanager
def asking(service: Service, *requests: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), timeout=120) as line:
        line.sendall(b"".join(requests))
        yield line


def live(service: Service, count: int) -> list[dict[str, Any]]:
    """So many jobs that wait or run, the oldest first."""

    def look() -> list[dict[str, Any]]:
        jobs = service.get("/image/jobs", params={"limit": 1000}).json()
        active = [each for each in jobs if each["state"] in ("queued", "running")]
        return active if len(active) == count else []

    return eventually(look, f"{count} jobs live")[::-1]


def test_an_answer_comes_at_the_end_and_the_connection_stays(folder: Path) -> None:
    with running(folder, GATEWAY, "gpu_worker") as service, requests.Session() as session:
        service.wait_available()
        for prompt in ("a", "b", "c"):
            reply = session.post(
                f"{service.url}/v1/blocking",
                data=body(prompt),
                headers={"Content-Type": "application/json"},
                timeout=60,
            )
            answer = reply.json()
            assert reply.status_code == 200 and reply.headers["X-Request-ID"]
            assert (answer["state"], answer["prompt"]) == ("succeeded", prompt)
            assert service.result(answer["uuid"])["prompt"] == prompt
            assert reply.headers.get("Connection", "keep-alive").lower() == "keep-alive"


def test_two_hundred_callers_hold_no_thread_and_are_answered_in_order(held: Service) -> None:
    order: list[str] = []
    lock = threading.Lock()

    def call(number: int) -> None:
        with asking(held, request_bytes(str(number), "1.1", "Connection: close")) as line:
            reply = rest(line)
        with lock:
            order.append(json.loads(reply.partition(b"\r\n\r\n")[2])["uuid"])

    with ThreadPoolExecutor(200) as pool, watched(held, GATEWAY) as watch:
        calls = [pool.submit(call, number) for number in range(200)]
        uuids = [each["uuid"] for each in live(held, 200)]
        asked = len(watch.seconds)
        eventually(lambda: len(watch.seconds) > asked + 20 or watch.failures, "the status came")
        assert held.get("/image/jobs").ok
        (held.data_dir / "released").touch()
        for each in calls:
            each.result()
    assert watch.failures == 0 and watch.slowest_s < 2.0
    assert sorted(order) == sorted(uuids)
    places = [uuids.index(uuid) for uuid in order]
    # Each is answered when its job ends; the callers' own threads may swap neighbours.
    assert all(abs(place - index) <= 20 for index, place in enumerate(places))


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_caller_of_any_version_is_answered(held: Service, version: str) -> None:
    with asking(held, request_bytes("a", version, "Connection: close")) as line:
        live(held, 1)
        (held.data_dir / "released").touch()
        reply = rest(line)
    assert b" 200 OK\r\n" in reply and reply.endswith(b'"prompt":"a"}')


def test_pipelined_requests_are_answered_in_their_order(held: Service) -> None:
    status = b"GET /server/status HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    with asking(held, request_bytes("a"), request_bytes("b"), status) as line:
        (job,) = live(held, 1)  # the second one begins after the first answer
        (held.data_dir / f"released.{job['uuid']}").touch()
        eventually(lambda: held.job(job["uuid"])["ended_time"], "the first one has ended")
        live(held, 1)
        (held.data_dir / "released").touch()
        reply = rest(line)
    assert reply.count(b"HTTP/1.1 200 OK") == 3
    assert reply.index(b'"prompt":"a"') < reply.index(b'"prompt":"b"') < reply.index(b"is_avail")


def test_a_canceled_job_is_answered(held: Service) -> None:
    with asking(held, request_bytes("a", "1.1", "Connection: close")) as line:
        (job,) = live(held, 1)
        held.request("DELETE", f"/image/jobs/{job['uuid']}")
        assert b'"state":"canceled"' in rest(line)


@pytest.mark.parametrize(("policy", "state"), [("finish", "succeeded"), ("cancel", "canceled")])
def test_what_becomes_of_a_job_whose_caller_has_left(folder: Path, policy: str, state: str) -> None:
    settings = {"SDE_PIPELINE": HELD, "SDE_ON_DISCONNECT": policy}
    with running(folder, GATEWAY, "gpu_worker", **settings) as service:
        service.wait_available()
        with asking(service, request_bytes("a")):
            (job,) = live(service, 1)
            with asking(service, request_bytes("b")):
                live(service, 2)
        if policy == "finish":
            (folder / "released").touch()
        eventually(lambda: service.job(job["uuid"])["ended_time"], "it has ended")
        assert service.job(job["uuid"])["state"] == state


def test_a_refused_request_is_refused_at_once(held: Service) -> None:
    reply = held.request("POST", "/v1/blocking", json=[])
    assert reply.status_code >= 400
    with watched(held, GATEWAY) as watch:
        eventually(lambda: watch.seconds, "the status came")
    assert watch.failures == 0
