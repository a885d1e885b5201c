"""Rows 41 and 42: a request that two parsers could read differently is refused, and nothing behind
it is answered."""

from __future__ import annotations

import contextlib
import re
import socket

import pytest

from tests.support.service import Service

BEHIND = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) [A-Z]")


def exchange(service: Service, *parts: bytes) -> bytes:
    """All that is answered until the other side closes."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            for part in parts:
                line.sendall(part)
            line.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: line.recv(1 << 16), b""))


def statuses(reply: bytes) -> list[int]:
    return [int(code) for code in STATUS.findall(reply)]


def post(*fields: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    lines = [b"POST /image/generate HTTP/" + version, b"Content-Type: application/json", *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


HOST = b"Host: localhost"
CHUNKED = b"Transfer-Encoding: chunked"
EMPTY = b"0\r\n\r\n"

REFUSED = {
    "length and coding": post(HOST, b"Content-Length: 5", CHUNKED, body=EMPTY),
    "coding and length": post(HOST, CHUNKED, b"Content-Length: 0", body=EMPTY),
    "coding twice": post(HOST, CHUNKED, CHUNKED, body=EMPTY),
    "coding twice in one": post(HOST, b"Transfer-Encoding: chunked, chunked", body=EMPTY),
    "coding after another": post(HOST, b"Transfer-Encoding: gzip, chunked", body=EMPTY),
    "coding after nothing": post(HOST, b"Transfer-Encoding: , chunked", body=EMPTY),
    "coding empty": post(HOST, b"Transfer-Encoding:", body=EMPTY),
    "coding folded": post(HOST, b"Transfer-Encoding:\r\n chunked", body=EMPTY),
    "coding with parameter": post(HOST, b"Transfer-Encoding: chunked;a=b", body=EMPTY),
    "coding with vertical tab": post(HOST, b"Transfer-Encoding: \x0bchunked", body=EMPTY),
    "coding with space": post(HOST, b"Transfer-Encoding : chunked", body=EMPTY),
    "coding in 1.0": post(HOST, b"Connection: keep-alive", CHUNKED, body=EMPTY, version=b"1.0"),
    "lengths differ": post(HOST, b"Content-Length: 0", b"Content-Length: 9"),
    "lengths agree": post(HOST, b"Content-Length: 2", b"Content-Length: 2", body=b"{}"),
    "length list": post(HOST, b"Content-Length: 2, 2", body=b"{}"),
    "length with sign": post(HOST, b"Content-Length: +2", body=b"{}"),
    "length negative": post(HOST, b"Content-Length: -2", body=b"{}"),
    "length in hex": post(HOST, b"Content-Length: 0x2", body=b"{}"),
    "length in words": post(HOST, b"Content-Length: two", body=b"{}"),
    "length empty": post(HOST, b"Content-Length:"),
    "length of 5000 digits": post(HOST, b"Content-Length: " + b"9" * 5000),
    "length invalid, expects": post(HOST, b"Content-Length: x", b"Expect: 100-continue"),
    "type twice": post(HOST, b"Content-Type: text/plain", b"Content-Length: 2", body=b"{}"),
    "host twice": post(HOST, HOST, b"Content-Length: 0"),
    "hosts differ": post(HOST, b"hOST: b", b"Content-Length: 0"),
    "no host": post(b"Content-Length: 0"),
    "host with space": post(b"Host: a b", b"Content-Length: 0"),
    "host list": post(b"Host: a/b", b"Content-Length: 0"),
    "other host in the line": b"GET http://b/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "folded": post(HOST, b"X-A: 1\r\n\tb", b"Content-Length: 0"),
    "folded first": b"GET /healthz HTTP/1.1\r\n X: y\r\nHost: localhost\r\n\r\n",
    "bare CR in a field": post(HOST, b"X-A: 1\rContent-Length: 9", b"Content-Length: 0"),
    "bare LF in a field": post(HOST, b"X-A: 1\nContent-Length: 9", b"Content-Length: 0"),
    "bare LF all over": b"GET /healthz HTTP/1.1\nHost: localhost\n\n",
    "bare CR all over": b"GET /healthz HTTP/1.1\rHost: localhost\r\r",
    "bare CR in the line": b"GET /healthz\r HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "NUL in a field": post(HOST, b"X-A: \0", b"Content-Length: 0"),
    "NUL in the line": b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tab in the line": b"GET\t/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "space before the line": b" GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "LF before the line": b"\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "field without a name": post(HOST, b": x", b"Content-Length: 0"),
    "field without a colon": post(HOST, b"x", b"Content-Length: 0"),
    "unreadable URL": b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "unreadable URL in 1.0": b"GET http://[::1 HTTP/1.0\r\n\r\n",
    "chunk without size": post(HOST, CHUNKED, body=b"\r\n\r\n"),
    "chunk of sign": post(HOST, CHUNKED, body=b"+2\r\n{}\r\n" + EMPTY),
    "chunk of 0x": post(HOST, CHUNKED, body=b"0x2\r\n{}\r\n" + EMPTY),
    "chunk with space": post(HOST, CHUNKED, body=b"2 \r\n{}\r\n" + EMPTY),
    "chunk of underscore": post(HOST, CHUNKED, body=b"0_2\r\n{}\r\n" + EMPTY),
    "chunk too long": post(HOST, CHUNKED, body=b"2\r\n{}x\r\n" + EMPTY),
    "chunk ends with LF": post(HOST, CHUNKED, body=b"2\n{}\n0\n\n"),
    "chunk size of 5000 digits": post(HOST, CHUNKED, body=b"f" * 5000 + b"\r\n"),
    "chunk extension": post(HOST, CHUNKED, body=b"2;\x01\r\n{}\r\n" + EMPTY),
    "chunk extension endless": post(HOST, CHUNKED, body=b"2;a=" + b"b" * 9000 + b"\r\n"),
    "trailer folded": post(HOST, CHUNKED, body=b"0\r\n a: b\r\n\r\n"),
    "trailers endless": post(HOST, CHUNKED, body=b"0\r\n" + b"a: b\r\n" * 3000 + b"\r\n"),
    "authorization twice": post(HOST, b"Authorization: Bearer a", b"Authorization: Bearer b"),
    "key twice": post(HOST, b"Idempotency-Key: a", b"Idempotency-Key: b"),
}


@pytest.mark.parametrize("shape", REFUSED.values(), ids=REFUSED)
def test_row_41_a_doubtful_request_is_refused_alone(service: Service, shape: bytes) -> None:
    reply = exchange(service, shape + BEHIND)
    assert statuses(reply) == [400], reply
    head, _, body = reply.partition(b"\r\n\r\n")
    assert b"Connection: close" in head and b"application/problem+json" in head
    assert b"100 Continue" not in reply and b'"status":400' in body


@pytest.mark.parametrize("shape", REFUSED.values(), ids=REFUSED)
def test_row_41_a_doubtful_request_in_small_pieces_too(service: Service, shape: bytes) -> None:
    size = max(1, len(shape) // 60)
    pieces = [shape[at : at + size] for at in range(0, len(shape), size)]
    assert statuses(exchange(service, *pieces, BEHIND)) == [400]


@pytest.mark.parametrize(
    ("shape", "status"),
    [
        (post(HOST, b"Transfer-Encoding: gzip"), 501),
        (post(HOST, b"Transfer-Encoding: identity"), 501),
        (b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (b"GET /healthz HTTP/1.2\r\nHost: localhost\r\n\r\n", 505),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 9000 + b"\r\n", 431),
    ],
)
def test_row_41_other_refusals_close_too(service: Service, shape: bytes, status: int) -> None:
    assert statuses(exchange(service, shape + BEHIND)) == [status]


@pytest.mark.parametrize("extension", [b"", b";a=b", b';a="b"'])
@pytest.mark.parametrize("size", [1, 5, 14])
def test_row_42_a_chunked_body_is_read_and_the_next_request_answered(
    service: Service, extension: bytes, size: int
) -> None:
    body = b'{"prompt": ""}'
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces)
    request = post(HOST, b"Transfer-Encoding: CHUNKED", body=chunks + b"0\r\nA: b\r\n\r\n")
    assert statuses(exchange(service, request + BEHIND)) == [422, 200]


def test_row_42_pipelined_requests_are_answered_in_order(service: Service) -> None:
    asked = [b"healthz", b"nowhere", b"server/workers"] * 50
    lines = b"".join(b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in asked)
    assert statuses(exchange(service, b"\r\n" + lines)) == [200, 404, 200] * 50


def test_row_42_old_versions_are_answered(service: Service) -> None:
    for request in (b"GET /healthz HTTP/1.0\r\n\r\n", b"GET /healthz\r\n\r\n"):
        assert statuses(exchange(service, request)) == [200]
    absolute = (
        b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    assert statuses(exchange(service, absolute)) == [200]


def test_row_41_nothing_of_it_is_in_the_log(service: Service) -> None:
    assert "Traceback" not in service.output()
