"""Rows 38 and 39: however many connections send nothing, or little, the status is answered."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.attacks import BODY, HEADER, POST, Crowd, affordable, ask, code, rest, watched
from tests.support.service import Service, eventually, running

WITHIN_S = 2.0


@contextlib.contextmanager
def connected(service: Service, *parts: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as line:
        for part in parts:
            line.sendall(part)
        yield line


@pytest.mark.parametrize(
    ("count", "first", "piece"),
    [
        (500, HEADER, b"x"),
        (500, BODY, b" "),
        (500, b"", b""),
        (500, b"\r\n", b"\r\n"),
        (500, b"G", b"E"),
        (500, BODY + b" " * 5000, b" " * 400),
        (2000, BODY, b" "),
        (5000, b"", b""),
    ],
    ids=["header", "body", "silent", "lines", "method", "steady", "body-2000", "silent-5000"],
)
def test_row_38_39_the_status_is_answered_within_two_seconds(
    service: Service, count: int, first: bytes, piece: bytes
) -> None:
    with (
        watched(service, pause_s=0.01) as watch,
        Crowd(service.port, affordable(count), first, piece, 0.2) as crowd,
    ):
        eventually(lambda: crowd.has_come, "all have come")
        asked = len(watch.seconds)
        eventually(lambda: len(watch.seconds) >= asked + 25 or watch.failures, "the status came")
    assert watch.failures == 0
    assert watch.slowest_s < WITHIN_S
    assert watch.peak_bytes - watch.first_bytes < 50 << 20


def test_row_38_39_many_addresses_keep_nobody_out(service: Service) -> None:
    with (
        watched(service, pause_s=0.01) as watch,
        Crowd(service.port, 1000, HEADER, b"x", 0.1, addresses=50) as crowd,
    ):
        eventually(lambda: crowd.has_come, "all have come")
        asked = len(watch.seconds)
        eventually(lambda: len(watch.seconds) >= asked + 25 or watch.failures, "the status came")
    assert watch.failures == 0 and watch.slowest_s < WITHIN_S


def test_row_38_a_client_that_sends_on_is_served_meanwhile(service: Service) -> None:
    service.wait_available()
    body = json.dumps({"prompt": "x", "negative_prompt": "", "junk": "x" * 800_000}).encode()
    with Crowd(service.port, 500, HEADER, b"x", 0.1) as crowd:
        eventually(lambda: crowd.has_come, "all have come")
        begun = crowd.reconnections
        with connected(service, POST + b"Content-Length: %d\r\n\r\n" % len(body)) as line:
            for at in range(0, len(body), 40_000):
                line.sendall(body[at : at + 40_000])
                passed = crowd.reconnections

                def others_came(passed: int = passed) -> bool:
                    return crowd.reconnections > passed + 50

                eventually(others_came, "others came")
            assert code(rest(line)) == "422"
        assert crowd.reconnections > begun + 500


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A gateway with small limits."""
    settings = {
        "SDE_REQUEST_TIMEOUT_S": "1",
        "SDE_MAX_WAITING_PER_ADDRESS": "5",
        "SDE_MAX_CONNECTIONS": "20",
        "SDE_MAX_HEADER_KIB": "2",
    }
    with running(tmp_path_factory.mktemp("x"), "gateway", **settings) as service:
        yield service


@pytest.mark.parametrize("begin", [HEADER, BODY, POST + b"Transfer-Encoding: chunked\r\n\r\n1"])
def test_row_38_a_request_has_a_deadline(strict: Service, begin: bytes) -> None:
    begun = time.monotonic()
    with connected(strict, begin) as line:
        reply = rest(line)
    assert code(reply) == "408" and b"Connection: close" in reply
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["status"] == 408
    assert 1 < time.monotonic() - begun < 10


def test_row_38_bytes_now_and_then_do_not_move_the_deadline(strict: Service) -> None:
    begun = time.monotonic()
    with connected(strict, HEADER) as line:
        line.settimeout(0.1)
        reply = b""
        while not reply and time.monotonic() < begun + 30:
            with contextlib.suppress(BrokenPipeError):  # it is closed, and the reply is there
                line.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                reply = line.recv(1 << 16)
    assert code(reply) == "408"


def accepted(process: psutil.Process) -> int:
    """How many connections the gateway has accepted and not closed."""
    connections = process.net_connections("tcp")
    return sum(each.status == psutil.CONN_ESTABLISHED for each in connections)


def one_reply(line: socket.socket) -> bytes:
    """The reply of /healthz."""
    reply = b""
    while not reply.endswith(b"}"):
        reply += line.recv(1 << 16)
    return reply


def is_open(line: socket.socket) -> bool:
    line.setblocking(False)
    try:
        return line.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_row_39_the_oldest_idle_connections_of_an_address_are_closed(strict: Service) -> None:
    with contextlib.ExitStack() as stack:
        lines = []
        for _ in range(10):
            line = stack.enter_context(connected(strict))
            line.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert code(one_reply(line)) == "200"
            lines.append(line)
            time.sleep(0.06)  # no connection is closed in its first 0.05 s
        eventually(lambda: not is_open(lines[0]), "the oldest is closed")
        assert [is_open(line) for line in lines[5:]] == [True] * 5
        lines[-1].setblocking(True)
        lines[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert code(one_reply(lines[-1])) == "200"


def test_row_39_the_header_has_a_limit(strict: Service) -> None:
    reply = ask(strict.port, b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 3000 + b"\r\n\r\n")
    assert code(reply) == "431" and b"problem+json" in reply


def test_row_39_few_descriptors_are_enough(folder: Path) -> None:
    """Fault 20: the log stays small, the status is answered, and it recovers."""
    with running(folder) as service:
        limited = ["sh", "-c", f"ulimit -n 64; exec {sys.executable} -m gateway"]
        service.start("gateway", limited)
        service.wait_answering()
        with (
            watched(service, pause_s=0.01) as watch,
            Crowd(service.port, 200, HEADER, b"x", 0.1) as crowd,
        ):
            eventually(lambda: crowd.has_come, "all have come")
            asked = len(watch.seconds)
            eventually(lambda: len(watch.seconds) >= asked + 50, "the status is answered")
            assert psutil.Process(service.children["gateway"].pid).num_fds() <= 64
        assert watch.failures == 0 and watch.slowest_s < WITHIN_S
        assert service.get("/image/generate").status_code == 200
        assert service.get("/image/jobs").json() == []
        log = service.output()
        assert "Traceback" not in log and len(log) < 4000


def test_row_39_no_descriptor_at_all_is_survived(folder: Path) -> None:
    with running(folder) as service:
        service.start("gateway")
        service.wait_answering()
        process = psutil.Process(service.children["gateway"].pid)
        limits = process.rlimit(psutil.RLIMIT_NOFILE)
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(connected(service, HEADER))
            eventually(lambda: accepted(process) >= 20, "they are accepted")
            process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds(), limits[1]))
            for _ in range(10):
                assert code(ask(service.port)) == "200"
        process.rlimit(psutil.RLIMIT_NOFILE, limits)
        assert code(ask(service.port)) == "200"
        log = service.output()
        assert "cannot accept a connection" in log
        assert "Traceback" not in log and len(log) < 4000
