"""What the HTTP server itself refuses has the form that the errors of its path have."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.support.service import Service, running

OPENAI, AUTOMATIC1111, NATIVE = "/v1/images/edits", "/sdapi/v1/img2img", "/image/generate"
MEMBERS = {
    OPENAI: ["error"],
    AUTOMATIC1111: ["error", "detail", "body", "errors"],
    NATIVE: ["type", "title", "status", "detail", "request_id"],
}
CHALLENGES = {OPENAI: "Bearer", AUTOMATIC1111: "Basic", NATIVE: "Bearer"}
LARGE, TOO_LARGE = str((1 << 20) + 1), str(3 << 20)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {
        "SDE_KEYS": "own:the-own-key-of-this-test",
        "SDE_MAX_BODY_MIB": "1",
        "SDE_PATH_PREFIX": "/sd",
    }
    with running(tmp_path_factory.mktemp("locked"), "gateway", **settings) as service:
        yield service


def refused(service: Service, path: str, **fields: str) -> tuple[http.client.HTTPResponse, Any]:
    """The answer to a request that ends after its header, and the JSON in it."""
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)) as line:
        line.putrequest("POST", path)
        for name, value in fields.items():
            line.putheader(name.replace("_", "-"), value)
        line.endheaders()
        reply = line.getresponse()
        return reply, json.loads(reply.read())


@pytest.mark.parametrize("prefix", ["", "/sd"])
@pytest.mark.parametrize("path", MEMBERS)
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Content_Length": "x"}, 400),
        ({"Content_Length": LARGE}, 401),
        ({"Content_Length": TOO_LARGE}, 413),
        ({"Transfer_Encoding": "gzip"}, 501),
    ],
)
def test_a_refusal_has_the_form_of_its_path(
    locked: Service, prefix: str, path: str, fields: dict[str, str], status: int
) -> None:
    reply, content = refused(locked, prefix + path, **fields)
    assert reply.status == status and list(content) == MEMBERS[path], content
    assert reply.headers["X-Request-ID"] and reply.headers["Content-Length"]
    challenge = reply.headers["WWW-Authenticate"]
    assert challenge is None if status != 401 else challenge.startswith(CHALLENGES[path])
    if path == OPENAI:
        error = content["error"]
        assert list(error) == ["message", "type", "param", "code"] and error["message"]
        assert (error["code"] == "invalid_api_key") == (status == 401)
        assert (reply.headers["x-should-retry"] == "false") == (status == 501)
