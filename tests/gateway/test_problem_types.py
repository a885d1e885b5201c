"""Row 59: every error is a problem document with a stable type and the id of its request."""

from __future__ import annotations

import ast
import gc
import json
import re
import socket
import sqlite3
import weakref
from collections.abc import Iterator
from typing import Any

import falcon
import falcon.testing
import pytest
import requests

from gateway import errors
from gateway.errors import NoWorker, RequestRefused
from gateway.http import problems
from gateway.http.request_log import RequestLog
from tests.support.service import LEAK, ROOT, Service

NEVER = "00000000-0000-4000-8000-000000000000"
ID = re.compile("[0-9a-f]{32}")


def checked(problem: dict[str, Any], status: int) -> str:
    """The type of a well-formed problem document."""
    assert list(problem)[:5] == ["type", "title", "status", "detail", "request_id"]
    assert problem["status"] == status and problem["title"] and problem["detail"]
    assert not LEAK.search(json.dumps(problem)) and "Traceback" not in json.dumps(problem)
    kind = str(problem["type"])
    assert re.fullmatch(r"urn:sde:problem:[a-z0-9]+(-[a-z0-9]+)*", kind)
    return kind.rpartition(":")[2]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("GET", "/nowhere", None, 404, "not-found"),
        ("GET", "/../../etc/passwd", None, 404, "not-found"),
        ("PUT", "/image/generate", None, 405, "method-not-allowed"),
        ("GET", "/image/generate?x=1", None, 400, "invalid-request"),
        ("GET", f"/image/jobs/{NEVER}", None, 404, "unknown-job"),
        ("GET", f"/image/files/{NEVER}.png", None, 404, "unknown-job"),
        ("DELETE", f"/image/generate?generation_uuid={NEVER}", None, 404, "unknown-job"),
        ("POST", "/image/generate", "{", 400, "broken-json"),
        ("POST", "/image/generate", "{}", 422, "invalid-request"),
        ("POST", "/server/models/nope/load", None, 503, "not-described"),
    ],
)
def test_each_refusal(
    service: Service, method: str, path: str, body: str | None, status: int, kind: str
) -> None:
    service.wait_available()
    headers = {"Content-Type": "application/json", "X-Request-ID": "an-id"}
    reply = requests.request(method, service.url + path, data=body, headers=headers, timeout=30)
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.headers["X-Request-ID"] == reply.json()["request_id"] == "an-id"
    assert checked(reply.json(), status) == kind


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
    ],
)
def test_what_is_no_request_gets_an_id_too(service: Service, request_bytes: bytes) -> None:
    with socket.create_connection(("127.0.0.1", service.port), 30) as client:
        client.sendall(request_bytes)
        client.shutdown(socket.SHUT_WR)
        reply = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = reply.partition(b"\r\n\r\n")
    problem = json.loads(body)
    checked(problem, int(head.split()[1]))
    assert ID.fullmatch(problem["request_id"]) and f"{problem['request_id']}".encode() in head


class Observer:
    """Ignores what it learns."""

    def answered(self, *_: object) -> None:
        """Nothing."""

    def refused(self, *_: object) -> None:
        """Nothing."""


class Raises:
    """Raises what the test sets."""

    error: Exception = ValueError()

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("/home/someone/secret.py is broken"),
        KeyError("a\nb"),
        OSError(2, "No such file", "/data/run/x"),
        RecursionError("maximum recursion depth exceeded"),
        MemoryError(),
        AssertionError(),
        falcon.HTTPInternalServerError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_nobody_expected_shows_nothing(error: Exception) -> None:
    app = falcon.App(middleware=[RequestLog(Observer())])
    problems.register(app)
    resource = Raises()
    resource.error = error
    app.add_route("/", resource)
    reply = falcon.testing.TestClient(app).simulate_get("/")
    assert reply.status_code == 500
    assert checked(reply.json, 500) in ("internal-error", "internal-server-error")
    assert "/" not in reply.text and reply.headers["x-request-id"] == reply.json["request_id"]


def test_an_index_that_cannot_be_read_is_503() -> None:
    app = falcon.App(middleware=[RequestLog(Observer())])
    problems.register(app)
    resource = Raises()
    resource.error = sqlite3.OperationalError("database or disk is full: /srv/x")
    app.add_route("/", resource)
    reply = falcon.testing.TestClient(app).simulate_get("/")
    assert reply.status_code == 503 and reply.headers["retry-after"] == "5"
    assert checked(reply.json, 503) == "index-unavailable" and "/srv" not in reply.text


class Body:
    """What a request holds in memory."""


class HoldsItsError:
    """A resource whose frame and error hold each other."""

    kind: type[Exception] = ValueError
    held: weakref.ref[Body]

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = Body()
        self.held = weakref.ref(body)
        error = NoWorker(5) if self.kind is NoWorker else self.kind()
        raise error


@pytest.mark.parametrize("kind", [NoWorker, ValueError, sqlite3.Error, falcon.HTTPNotFound])
def test_an_answered_error_keeps_nothing_in_memory(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = falcon.App(middleware=[RequestLog(Observer())])
    problems.register(app)
    resource = HoldsItsError()
    resource.kind = kind
    app.add_route("/", resource)
    monkeypatch.setattr(problems.log, "disabled", True)  # pytest would keep the record
    gc.disable()
    try:
        falcon.testing.TestClient(app).simulate_get("/")
        assert resource.held() is None
    finally:
        gc.enable()


def titles() -> Iterator[str]:
    """Every title that the source itself writes, and those of the server's own refusals."""
    yield from ("Starting", "Bad Request")
    for path in set((ROOT / "gateway").rglob("*.py")) - set((ROOT / "gateway/openapi").iterdir()):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "title":
                if isinstance(node.value, ast.Constant):
                    yield str(node.value.value)
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "fill":
                title = node.args[2]
                if isinstance(title, ast.Constant):
                    yield str(title.value)


def test_each_type_is_documented_and_told_apart() -> None:
    kinds = [
        name
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, RequestRefused) and cls is not RequestRefused
    ]
    assert len(kinds) > 12
    texts = [*kinds, *titles()]
    types = {
        problems.document(400, "t", "d", text, None)["type"].rpartition(":")[2] for text in texts
    }
    documented = (ROOT / "docs/http-api.md").read_text()
    assert [kind for kind in sorted(types) if f"`{kind}`" not in documented] == []
    assert len({problems.document(400, "t", "d", name, None)["type"] for name in kinds}) == len(
        kinds
    )
