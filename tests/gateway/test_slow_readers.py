"""Clients that do not read what they are sent: the service goes on, and lets go of them."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import waitress.wasyncore

from gateway.errors import TooManyStreams
from gateway.http.concurrency_limit import ConcurrencyLimit
from gateway.http.json_array import MAX_STREAMS
from gateway.http.server.limits import HttpLimits
from gateway.http.server.listener import (
    SERVER_THREADS,
    STALLED_S,
    STALLED_UNDER_PRESSURE_S,
    listen,
)
from gpu_worker.store import record_line
from tests.support.attacks import rest
from tests.support.gateway_short_timeouts import PATIENCE_S
from tests.support.service import Service, eventually, free_port, running

GATEWAY = "tests.support.gateway_short_timeouts"
RECORDS, PICTURE_BYTES = 20, 1_500_000
LARGE_BYTES = 8_000_000
"""Of the last one: more than the kernel takes for a client that does not read."""


def uuid_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def store(folder: Path) -> None:
    """Results of 2 MB each, and a larger one."""
    results = folder / "disk_backups"
    results.mkdir(parents=True)
    sizes = [*[PICTURE_BYTES] * (RECORDS - 1), LARGE_BYTES]
    lines = [
        record_line.encode(
            {
                "uuid": uuid_of(number),
                "prompt": "x",
                "created_time": "2026-01-01T00:00:00.000+00:00",
                "errors": [],
                "data": base64.b64encode(os.urandom(size)).decode(),
                "state": "succeeded",
                "sequence": number,
            }
        )
        for number, size in enumerate(sizes)
    ]
    (results / "gpu-0.00000001.jsonl").write_bytes(b"".join(lines))


@pytest.fixture(scope="module")
def impatient() -> Iterator[Service]:
    """A gateway without a worker that lets go of who takes nothing for PATIENCE_S."""
    with tempfile.TemporaryDirectory(prefix="sde-") as path:
        store(Path(path))
        with running(Path(path), GATEWAY) as service:
            service.wait_answering()
            yield service
            service.kill(GATEWAY)


def memory_bytes(service: Service) -> int:
    size: int = psutil.Process(service.children[GATEWAY].pid).memory_info().rss
    return size


@contextlib.contextmanager
def who_never_read(port: int, path: str, count: int) -> Iterator[list[socket.socket]]:
    """They have asked, and what comes fills their small buffers."""
    with contextlib.ExitStack() as stack:
        asked = []
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(("127.0.0.1", port))
            one.settimeout(30)
            one.sendall(
                f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
            )
            asked.append(one)
        yield asked


def list_status(service: Service) -> int:
    with service.get("/image/generate", stream=True) as reply:
        return reply.status_code


def test_who_does_not_read_stops_nobody(impatient: Service) -> None:
    before = memory_bytes(impatient)
    with who_never_read(impatient.port, "/image/generate", SERVER_THREADS + 8) as stalled:
        eventually(lambda: list_status(impatient) == 503, "every place for a list is taken")
        refused = impatient.get("/image/generate")
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["title"] == "Too many streams"
        assert impatient.get("/healthz").ok
        assert impatient.post({"prompt": "a"}).json()["title"] == "No worker"
        found = impatient.get("/image/generate", params={"generation_uuid": uuid_of(3)}).json()
        assert [record["uuid"] for record in found] == [uuid_of(3)]
        assert memory_bytes(impatient) - before < 200_000_000
        eventually(lambda: list_status(impatient) == 200, "they are let go of")
        came = [rest(one) for one in stalled]
    answers = sorted(text.partition(b"\r\n")[0] for text in came)
    assert answers.count(b"HTTP/1.1 200 OK") == MAX_STREAMS
    assert answers.count(b"HTTP/1.1 503 Service Unavailable") == len(stalled) - MAX_STREAMS
    assert max(map(len, came)) < RECORDS * PICTURE_BYTES  # none of them has it all
    assert "closed the connection of 127.0.0.1" in impatient.output()


def test_a_slow_reader_gets_all(impatient: Service) -> None:
    piece = RECORDS * PICTURE_BYTES // 60
    begun = time.monotonic()
    with who_never_read(impatient.port, "/image/generate", 1) as (slow,):
        text, parts = bytearray(), 0
        while part := slow.recv(1 << 16):
            text += part
            if len(text) // piece > parts:
                parts = len(text) // piece
                time.sleep(2 * PATIENCE_S / 60)  # the pace of a thin line
    assert time.monotonic() - begun > 1.5 * PATIENCE_S
    head, _, body = bytes(text).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert [record["sequence"] for record in json.loads(unchunked(body))] == list(range(RECORDS))


def unchunked(body: bytes) -> bytes:
    """RFC 9112, section 7.1."""
    parts, at = [], 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def test_who_does_not_read_a_picture_loses_the_connection(impatient: Service) -> None:
    path = f"/image/files/{uuid_of(RECORDS - 1)}.png"
    with who_never_read(impatient.port, path, SERVER_THREADS + 8) as stalled:
        assert impatient.get("/healthz").ok

        def open_connections() -> int:
            process = psutil.Process(impatient.children[GATEWAY].pid)
            return sum(one.status == "ESTABLISHED" for one in process.net_connections("tcp"))

        eventually(lambda: open_connections() >= len(stalled), "they are all connected")
        eventually(lambda: open_connections() == 0, "they are let go of")
    assert len(impatient.get(path).content) == LARGE_BYTES


# ---- without a service ----------------------------------------------------------------------


@contextlib.contextmanager
def serving(app: Callable[..., Any]) -> Iterator[tuple[Any, int]]:
    """waitress as the gateway runs it, in this process."""
    server = listen(app, "127.0.0.1", free_port(), HttpLimits(max_body_bytes=1 << 20))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server, int(server.effective_port)
    finally:

        def close() -> None:
            for one in list(server.active_channels.values()):
                one.handle_close()
            waitress.wasyncore.close_all(server._map)

        server.trigger.pull_trigger(close)
        thread.join()
        server.task_dispatcher.shutdown()


REPLY_BYTES = 48 << 20
REPLY = b"x" * REPLY_BYTES


def large(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Length", str(REPLY_BYTES))])
    return [REPLY]


@pytest.mark.parametrize(
    ("count", "seconds", "loses_one"),
    [
        (1, STALLED_UNDER_PRESSURE_S, False),
        (1, STALLED_S, True),
        (8, STALLED_UNDER_PRESSURE_S, True),
    ],
)
def test_patience_ends_sooner_when_much_waits(count: int, seconds: float, loses_one: bool) -> None:
    with serving(large) as (server, port), who_never_read(port, "/", count) as stalled:

        def waiting() -> list[Any]:
            found = list(server.active_channels.values())
            done = all(one.total_outbufs_len > REPLY_BYTES // 2 for one in found)
            return found if done and len(found) == count else []

        connections = eventually(waiting, "the replies wait for their readers")
        since = min(one.last_activity for one in connections)
        server.maintenance(since + seconds)
        assert not any(one.stalled_since for one in connections)
        server.maintenance(time.time() + seconds + 1)
        assert loses_one or not any(one.stalled_since for one in connections)
        if loses_one:

            def gone() -> bool:
                server.maintenance(time.time() + seconds + 1)
                return len(server.active_channels) < count

            # No more of them than it takes to be below the limit again.
            eventually(gone, "one has lost its connection")
            assert any(len(rest(one)) < REPLY_BYTES for one in stalled)


def test_a_place_is_given_back_once() -> None:
    places = ConcurrencyLimit(1, "tests", retry_after_s=1)
    release = places.acquire()
    release()
    release()
    again = places.acquire()
    with pytest.raises(TooManyStreams, match="too many tests are being sent"):
        places.acquire()
    again()
    places.acquire()
