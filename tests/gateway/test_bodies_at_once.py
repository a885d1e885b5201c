"""Rows 32, 40 and 48: many large bodies, images and readers at once need bounded memory, and no
temporary folder."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import attacks
from tests.support.attacks import PICTURE, POST, ask, code, json_request, request_of, watched
from tests.support.input_images import GOOD, picture
from tests.support.service import Service, eventually, running

WITHIN_S = 2.0
FULL = "tests.support.gateway_without_temporary_files"


# ---- images ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bombs() -> list[str]:
    """Base64 of WebPs of 16 million pixels and less than a kilobyte."""
    return attacks.webp_bombs(7)


def test_row_48_images_are_counted_before_one_is_decoded(
    service: Service, bombs: list[str]
) -> None:
    service.wait_available()
    request = json_request(request_of(bombs + bombs[:6] * 2))
    with watched(service) as watch:
        assert attacks.at_once(service, 40, request) == "40 x 422"
        eventually(lambda: watch.seconds, "the status came")
    assert watch.failures == 0 and watch.slowest_s < WITHIN_S
    assert watch.peak_bytes - watch.first_bytes < 60 << 20
    assert b"controlnets: must have at most 4 items" in ask(service.port, request)


def test_row_48_an_invalid_field_is_refused_before_an_image_is_decoded(
    service: Service, bombs: list[str]
) -> None:
    body = json.dumps({"prompt": "x", "image": bombs[0], "width": 3}).encode()
    with watched(service) as watch:
        assert attacks.at_once(service, 8, json_request(body)) == "8 x 422"
    assert watch.peak_bytes - watch.first_bytes < 60 << 20


def test_row_48_images_of_all_requests_are_decoded_in_turn(folder: Path, bombs: list[str]) -> None:
    with running(folder, "gateway") as service:
        request = json_request(request_of(bombs[:2] + bombs[:1]))
        with watched(service) as watch:
            answers = attacks.at_once(service, 16, request)
        assert watch.failures == 0 and watch.slowest_s < WITHIN_S
        assert watch.peak_bytes - watch.first_bytes < 400 << 20
        assert watch.last_bytes - watch.first_bytes < 40 << 20
        assert answers == "16 x 503"  # too many uploads, or at last: no worker
        reply = ask(service.port, json_request(request_of([GOOD] * 3)))
        assert b"Retry-After: " in reply and b"No worker" in reply


@pytest.mark.parametrize("size", [(16384, 16384), (8192, 8192), (16383, 16), (16, 9000)])
def test_row_48_the_size_of_a_webp_is_read_before_it_is_opened(
    service: Service, size: tuple[int, int]
) -> None:
    width, height = size
    lossless = (width - 1) | (height - 1) << 14
    for kind, rest in (
        (
            b"VP8X",
            bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"),
        ),
        (b"VP8L", b"\x2f" + lossless.to_bytes(4, "little") + bytes(20)),
    ):
        chunk = kind + len(rest).to_bytes(4, "little") + rest
        content = b"RIFF" + (len(chunk) + 4).to_bytes(4, "little") + b"WEBP" + chunk + bytes(9)
        text = base64.b64encode(content).decode()
        reply = service.post({"prompt": "a", "image": text})
        assert reply.status_code == 422
        assert f"{width} x {height}" in reply.json()["detail"]


def test_row_48_a_jpeg_of_many_scans_is_refused(service: Service) -> None:
    content = picture("JPEG")
    scan = content.index(b"\xff\xda")
    text = base64.b64encode(content[:scan] + content[scan:-2] * 300 + b"\xff\xd9").decode()
    reply = service.post({"prompt": "a", "image": text})
    assert reply.status_code == 422 and "more than 200 scans" in reply.json()["detail"]


# ---- bodies ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A gateway that takes bodies of 1 MiB, 3 MiB at a time, and has no temporary folder."""
    folder = tmp_path_factory.mktemp("x")
    attacks.store_picture(folder)
    settings = {"SDE_MAX_BODY_MIB": "1", "SDE_MAX_UPLOADS_MIB": "3"}
    with running(folder, FULL, **settings) as service:
        service.wait_answering()
        yield service
        service.kill(FULL)
        assert "Traceback" not in service.output()


@contextlib.contextmanager
def part_of_a_body(service: Service, size: int, of: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as line:
        line.sendall(POST + b"Content-Length: %d\r\n\r\n" % of + b" " * size)
        yield line


BIG = json_request(b'{"prompt": ""' + b" " * 900_000 + b"}")


def test_row_32_all_bodies_together_have_a_limit(small: Service) -> None:
    with contextlib.ExitStack() as stack:

        def refused_one() -> bytes:
            # Each time another one takes what room is left.
            stack.enter_context(part_of_a_body(small, 1_000_000, 1_040_000))
            reply = ask(small.port, BIG)
            return reply if code(reply) == "503" else b""

        refused = eventually(refused_one, "no room is left")
        assert b"Retry-After: 2" in refused and b"SDE_MAX_UPLOADS_MIB" in refused
        assert code(ask(small.port, json_request(b'{"prompt": ""}'))) == "422"  # needs no room
        assert code(ask(small.port)) == "200"
    eventually(lambda: code(ask(small.port, BIG)) == "422", "there is room again")


def test_row_32_room_is_given_back_however_a_body_ends(small: Service) -> None:
    bad = POST + b"Transfer-Encoding: chunked\r\n\r\nf0000\r\n" + b" " * 0xF0000 + b"junk\r\n"
    for _ in range(5):
        with part_of_a_body(small, 1_000_000, 1_040_000) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert code(ask(small.port, bad)) == "400"
        eventually(lambda: code(ask(small.port, BIG)) == "422", "there is room")


@pytest.mark.parametrize("size", [(1 << 20) + 1, 3 << 20, 30 << 20])
@pytest.mark.parametrize("form", ["length", "chunked", "continue"])
def test_row_32_a_body_beyond_the_limit_is_answered(small: Service, size: int, form: str) -> None:
    """The client sends all of it before it reads. The answer is there, and no reset."""
    body = b"x" * size
    if form == "chunked":
        head = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size
        request = POST + head + body + b"\r\n0\r\n\r\n"
    elif form == "continue":
        request = POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % size + body
    else:
        request = POST + b"Content-Length: %d\r\n\r\n" % size + body
    reply = ask(small.port, request).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert code(reply) == "413", reply
    assert b"problem+json" in reply


def test_row_32_endless_bodies_end(small: Service) -> None:
    with watched(small, FULL) as watch:
        answers = attacks.endless(small, 20)
    assert set(answers.replace(",", "").split()[2::3]) <= {"413", "503"}, answers
    assert watch.failures == 0 and watch.slowest_s < WITHIN_S
    assert watch.peak_bytes - watch.first_bytes < 40 << 20


def test_row_32_a_body_of_tiny_chunks_is_read_or_refused(small: Service) -> None:
    chunks = b"1\r\n \r\n" * 100_001
    reply = ask(small.port, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert code(reply) == "400" and b"more than 100000 chunks" in reply


def test_row_40_large_replies_need_no_temporary_folder(small: Service) -> None:
    image = small.get(f"/image/files/{PICTURE}.png")
    assert len(image.content) == attacks.PICTURE_BYTES
    assert int(image.headers["Content-Length"]) == attacks.PICTURE_BYTES
    (record,) = small.get(f"/image/generate?generation_uuid={PICTURE}").json()
    assert base64.b64decode(record["data"]) == image.content
    assert small.get("/image/generate").json() == [record]


@pytest.mark.parametrize(
    "path", [f"/image/files/{PICTURE}.png", f"/image/generate?generation_uuid={PICTURE}"]
)
def test_row_40_slow_readers_of_a_large_reply_need_no_memory(small: Service, path: str) -> None:
    with watched(small, FULL) as watch, contextlib.ExitStack() as stack:
        lines = [stack.enter_context(reader(small, path)) for _ in range(200)]
        for line in lines:
            assert code(line.recv(512)) == "200"
    assert watch.failures == 0 and watch.slowest_s < WITHIN_S
    assert watch.peak_bytes - watch.first_bytes < 60 << 20


@contextlib.contextmanager
def reader(service: Service, path: str) -> Iterator[socket.socket]:
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", service.port))
        line.settimeout(60)
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        yield line


def test_row_40_42_pipelined_replies_that_nobody_reads_hold_no_thread(small: Service) -> None:
    path = f"/image/files/{PICTURE}.png"
    with watched(small, FULL) as watch, contextlib.ExitStack() as stack:
        lines = [stack.enter_context(reader(small, path)) for _ in range(80)]
        for line in lines:
            line.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() * 3)
        for line in lines:
            assert code(line.recv(512)) == "200"
        asked = len(watch.seconds)
        eventually(lambda: len(watch.seconds) > asked + 3 or watch.failures, "the status came")
    assert watch.failures == 0 and watch.slowest_s < WITHIN_S


def test_row_40_an_image_is_whole_whatever_the_pieces(small: Service) -> None:
    whole = small.get(f"/image/files/{PICTURE}.png").content
    with reader(small, f"/image/files/{PICTURE}.png") as line:
        reply = bytearray()
        for size in (1, 2, 3, 5, 7, 11, 4093, 65537):
            reply += line.recv(size)
        while part := line.recv(100_003):
            reply += part
            if len(reply) >= attacks.PICTURE_BYTES + reply.index(b"\r\n\r\n") + 4:
                break
    assert bytes(reply).partition(b"\r\n\r\n")[2] == whole


def test_row_40_memory_comes_back_after_uploads(folder: Path) -> None:
    with running(folder, "gateway") as service:
        with watched(service) as watch:
            answers = attacks.uploads(service, 8, 1500)
        assert set(answers.replace(",", "").split()[2::3]) == {"503"}, answers
        assert watch.failures == 0 and watch.slowest_s < WITHIN_S
        gateway = psutil.Process(service.children["gateway"].pid)
        # The rest of a refused body is read for some seconds.
        eventually(
            lambda: gateway.memory_info().rss - watch.first_bytes < 40 << 20,
            "the memory has come back",
        )
