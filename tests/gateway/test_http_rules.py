"""Rules that hold for every route: queries, methods, types of bodies, the size of a refusal."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import pytest
import requests

from tests.support.service import Service

NEVER = "00000000-0000-4000-8000-000000000000"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def made(service: Service) -> str:
    """The uuid of a job that has its result."""
    service.wait_available()
    uuid = service.submit("for the rules")
    service.result(uuid)
    return uuid


def refused(reply: requests.Response, status: int) -> str:
    """The detail of a problem document."""
    assert reply.status_code == status, reply.text
    assert reply.headers["Content-Type"] == "application/problem+json"
    detail: str = reply.json()["detail"]
    return detail


# ---- queries --------------------------------------------------------------------------------


READ = (
    *("/server/status", "/server/workers", "/server/storage", "/server/models", "/healthz"),
    *("/image/generate", "/image/jobs", f"/image/jobs/{NEVER}", f"/image/jobs/{NEVER}/events"),
    *(f"/image/jobs/{NEVER}/preview", f"/image/jobs/{NEVER}/inputs/{'0' * 64}"),
    f"/image/files/{NEVER}.png",
)
CHANGING = (
    *(("POST", "/image/generate"), ("POST", "/image/upscale"), ("DELETE", "/image/generate")),
    *(("DELETE", f"/image/jobs/{NEVER}"), ("POST", "/server/models/demo/load")),
    ("POST", "/server/models/demo/unload"),
)


@pytest.mark.parametrize(("method", "path"), [*(("GET", path) for path in READ), *CHANGING])
def test_an_unknown_parameter_is_refused_everywhere(
    service: Service, method: str, path: str
) -> None:
    reply = requests.request(
        method, f"{service.url}{path}?x=1", data=b'{"prompt": "a"}', headers=JSON, timeout=30
    )
    assert "'x' is not a known parameter" in refused(reply, 400)


@pytest.mark.parametrize(
    "query",
    [
        *("limit=1_0", "limit=%201", "limit=1%20", "limit=%D9%A3", "limit=+1", "limit=0x1"),
        *("limit=1.0", "limit=", "limit=0", "limit=1001", "limit=" + "9" * 5000),
        *("limit=1&limit=2", "data=True", "data=1"),
    ],
)
def test_a_number_is_made_of_ascii_digits(service: Service, query: str) -> None:
    name = query.partition("=")[0]
    assert refused(service.get(f"/image/generate?{query}"), 400).startswith(f"{name}: ")


@pytest.mark.parametrize("wait", ["1_0", "%20.1", "%D9%A3", "nan", "inf", "-1", "30.1", ".", "1e"])
def test_seconds_are_made_of_ascii_digits(service: Service, made: str, wait: str) -> None:
    assert refused(service.get(f"/image/jobs/{made}?wait={wait}"), 400).startswith("wait: ")


@pytest.mark.parametrize("wait", ["0", "0.001", "1e-3", "0."])
def test_seconds_may_have_a_fraction(service: Service, made: str, wait: str) -> None:
    assert service.get(f"/image/jobs/{made}?wait={wait}").json()["state"] == "succeeded"


@pytest.mark.parametrize("wrong", ["%20" + NEVER[1:], "%2B" + "1" * 31, "1_" * 16, "%D9%A3" * 32])
def test_a_uuid_is_made_of_ascii_digits(service: Service, wrong: str) -> None:
    reply = service.get(f"/image/generate?generation_uuid={wrong}")
    assert refused(reply, 400).endswith("is not a uuid")


@pytest.mark.parametrize("other", ["limit=1", f"before={NEVER}"])
def test_a_page_of_one_job_is_refused(service: Service, made: str, other: str) -> None:
    reply = service.get(f"/image/generate?generation_uuid={made}&{other}")
    detail = refused(reply, 400)
    assert detail.startswith(other.partition("=")[0]) and "generation_uuid" in detail


def test_a_missing_parameter_is_told_as_missing(service: Service) -> None:
    reply = requests.delete(f"{service.url}/image/generate", timeout=30)
    assert refused(reply, 400).startswith("generation_uuid: is missing; send the uuid of")


# ---- methods --------------------------------------------------------------------------------


def test_what_is_not_there_is_named(service: Service) -> None:
    assert (
        refused(service.get("/nowhere/at/all"), 404) == "the path '/nowhere/at/all' does not exist"
    )
    reply = requests.put(f"{service.url}/server/status", timeout=30)
    detail = refused(reply, 405)
    assert "PUT" in detail and "'/server/status'" in detail and "GET, HEAD" in detail
    assert reply.headers["Allow"].startswith("GET, HEAD")


def test_head_is_get_without_a_body(service: Service, made: str) -> None:
    for path in (*READ[:7], f"/image/jobs/{made}", f"/image/files/{made}.png"):
        got = service.get(path)
        head = requests.head(service.url + path, timeout=30)
        assert (head.status_code, head.content) == (got.status_code, b"")
        for name in ("Content-Type", "Content-Length", "ETag", "Cache-Control"):
            assert head.headers.get(name) == got.headers.get(name), (path, name)
    assert (
        int(
            requests.head(f"{service.url}/image/files/{made}.png", timeout=30).headers[
                "Content-Length"
            ]
        )
        > 100
    )
    assert requests.head(f"{service.url}/image/jobs/{NEVER}", timeout=30).status_code == 404


@pytest.mark.parametrize("path", ["/image/generate", "/server/status", "/nowhere"])
def test_nothing_follows_the_header_of_a_head(service: Service, made: str, path: str) -> None:
    """Also no end of chunks, which a client would take for the next response."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        request = f"HEAD {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        reply = b""
        while chunk := connection.recv(4096):
            reply += chunk
    header, _, rest = reply.partition(b"\r\n\r\n")
    assert header.startswith(b"HTTP/1.1 ") and rest == b""


def test_null_is_not_sent_and_a_seed_of_minus_one_is_drawn(service: Service) -> None:
    service.wait_available()
    optional = {"width": None, "loras": None, "hires": None, "image": None, "step_log": None}
    seeds = set()
    for _ in range(2):
        uuid = service.submit("x", seed=-1, negative_prompt=None, **optional)
        seeds.add(service.result(uuid)["seed"])
        service.wait_available()
    assert len(seeds) == 2 and min(seeds) >= 0
    assert "prompt: must be a string" in refused(service.post({"prompt": None}), 422)
    assert "seed" in refused(service.post({"prompt": "x", "seed": -2}), 422)


def test_head_takes_no_place_of_a_stream(service: Service, made: str) -> None:
    for path in ("/image/generate", f"/image/jobs/{made}/events"):
        for _ in range(20):
            head = requests.head(service.url + path, timeout=30)
            assert (head.status_code, head.content) == (200, b"")


def test_who_has_a_picture_is_not_sent_it_again(service: Service, made: str) -> None:
    path = f"/image/files/{made}.png"
    etag = service.get(path).headers["ETag"]
    for said in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        reply = service.get(path, headers={"If-None-Match": said})
        assert (reply.status_code, reply.content, reply.headers["ETag"]) == (304, b"", etag)
    for said in ('"other"', etag.strip('"')[:-1], f'"x{etag[1:]}'):
        assert service.get(path, headers={"If-None-Match": said}).status_code == 200
    reply = service.get(f"/image/files/{NEVER}.png", headers={"If-None-Match": "*"})
    assert reply.status_code == 404


def test_polling_keeps_its_connection(service: Service, made: str) -> None:
    line = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    line.connect()
    held = line.sock
    for uuid, count in ((NEVER, 0), (made, 1), (NEVER, 0)):
        line.request("GET", f"/image/generate?generation_uuid={uuid}")
        reply = line.getresponse()
        found = json.loads(reply.read())
        assert len(found) == count and reply.getheader("Content-Length") is not None
        assert line.sock is held
    line.close()


# ---- bodies ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"Content-Encoding": "gzip"}, "Content-Encoding: 'gzip' is not supported"),
        ({"Content-Encoding": "identity, br"}, "Content-Encoding"),
        ({"Content-Type": "application/json; charset=latin-1"}, "JSON is UTF-8, not 'latin-1'"),
        ({"Content-Type": 'application/json; charset="utf-16"'}, "JSON is UTF-8, not 'utf-16'"),
    ],
)
def test_another_coding_of_the_body_is_refused(
    service: Service, headers: dict[str, str], said: str
) -> None:
    assert said in refused(service.post(b'{"prompt": "a"}', headers=JSON | headers), 415)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Encoding": "identity"},
        {"Content-Type": 'application/json;charset="UTF-8"'},
    ],
)
def test_the_plain_coding_may_be_named(service: Service, headers: dict[str, str]) -> None:
    reply = service.post(b'{"prompt": ""}', headers=JSON | headers)
    assert "prompt: must not be blank" in refused(reply, 422)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"prompt": "a", "guidance_scale": NaN}', "guidance_scale: 'NaN'"),
        (b'{"guidance_scale": -Infinity}', "guidance_scale: '-Infinity'"),
        (b'{"loras": [{}, {"weight": 1e999}]}', "loras.1.weight: '1e999'"),
        (b'{"prompt": "a\\ud800b"}', "prompt: has a lone surrogate: 'a\\ud800b'"),
        (b'{"\\udfff": 1}', "\\udfff: has a lone surrogate"),
        (b"Infinity", "body: 'Infinity'"),
        (b'{"eta": NaN', "line 1 column 9"),
        (b'{"eta": NaN, "x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "the body is not valid JSON"),
        (b'{"eta": NaN, "x": "' + b"x" * 70_000 + b'"}', "the body is not valid JSON"),
    ],
    ids=lambda v: ascii(v)[:40],
)
def test_what_json_cannot_say_is_named_where_it_stands(
    service: Service, body: bytes, said: str
) -> None:
    assert said in refused(service.post(body), 400)


@pytest.mark.parametrize("body", [b"null", b"[]", b'"a"', b"5"])
def test_a_body_is_an_object(service: Service, body: bytes) -> None:
    for path in ("/image/generate", "/image/upscale"):
        reply = requests.post(service.url + path, data=body, headers=JSON, timeout=30)
        assert "body: must be a JSON object" in refused(reply, 422)
        assert "Request" not in reply.text


@pytest.mark.parametrize("seed", [b"99999999999999999999999999", b"1.5", b'"1"', b"true"])
def test_a_seed_is_told_its_range(service: Service, seed: bytes) -> None:
    detail = refused(service.post(b'{"prompt": "a", "seed": %b}' % seed), 422)
    assert f"seed: must be a whole number from 0 to {2**53 - 17}" in detail


# ---- the size of a refusal ------------------------------------------------------------------


def many(value: str, count: int) -> str:
    return ",".join(f'"f{number}":{value}' for number in range(count))


def whole(more: str) -> str:
    return f'{{"prompt":"a",{more}}}'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (whole(many("1", 90_000)), "has 90001 members"),
        (whole(f'"ip_adapter":{{{many("1", 90_000)}}}'), "ip_adapter: has 90000 members"),
        (whole(f'"scheduler_options":{{{many("[]", 80_000)}}}'), "has 80000 members"),
        (whole('"loras":[' + "1," * 100_000 + "1]"), "loras"),
        (whole(many("1", 30)), "and 10 more"),
        (whole('"' + "f" * 900_000 + '":1'), "ff…: is not a known field"),
    ],
    ids=["unknown", "nested", "options", "list", "thirty", "long"],
)
def test_a_refusal_is_small_whatever_it_refuses(service: Service, body: str, said: str) -> None:
    reply = service.post(body.encode())
    detail = refused(reply, 422)
    assert said in detail and len(reply.content) < 16_000
    assert 1 <= len(reply.json()["errors"]) <= 20


def test_the_known_fields_are_told_once(service: Service) -> None:
    reply = service.post({"prompt": "a", "steps": 1, "cfg": 2})
    detail = refused(reply, 422)
    assert detail.count("num_inference_steps") == 1 and "known fields are prompt, " in detail
    assert [fault["message"] for fault in reply.json()["errors"]] == ["is not a known field"] * 2


# ---- control characters ---------------------------------------------------------------------


@pytest.mark.parametrize("code", [0x1F, 0x7F, 0x80, 0x85, 0x9B, 0x9F])
@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_what_a_terminal_obeys_is_refused(service: Service, field: str, code: int) -> None:
    body: dict[str, Any] = {"prompt": "a", field: f"a{chr(code)}31m"}
    said = f"{field}: must not contain the control character U+{code:04X}"
    assert said in refused(service.post(body), 422)


def test_what_stands_beside_them_is_taken(service: Service) -> None:
    service.wait_available()
    prompt = "a\t\n\r ~\u00a0\u00adé\u200d\u2028"
    assert service.result(service.submit(prompt))["prompt"] == prompt
