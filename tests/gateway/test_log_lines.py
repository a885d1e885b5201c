"""The log: a line a job at its start and end, one a refusal, and nothing that can forge a line.

Rows 56 (log injection) and 57 (secrets) of the list of attacks.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from gpu_worker.store import log_format
from gpu_worker.store.log_format import (
    JsonFormatter,
    LineHandler,
    SecretFilter,
    TextFormatter,
    printable,
)
from tests.support.service import Service, eventually, running

NEVER = "00000000-0000-4000-8000-000000000000"
FORGED = "x\n2026-01-01T00:00:00.000+00:00 ERROR gateway: forged\u2028\u202e\u200b\x85"
MARK = "zebra-crossing-at-midnight"
FIELDS = ("request_id", "uuid", "owner", "door", "model", "width", "height", "steps", "outcome")


def text_of(service: Service, name: str = "gateway") -> str:
    return (service.data_dir / f"{name}.out").read_text()


def events(service: Service, **members: Any) -> list[dict[str, Any]]:
    """The events of the gateway with these members."""
    lines = [json.loads(line) for line in text_of(service).splitlines()]
    return [line for line in lines if members.items() <= line.items()]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = Path(tmp_path_factory.mktemp("l", numbered=True))
    with running(folder, "gateway", "gpu_worker", SDE_LOG_FORMAT="json") as service:
        yield service


def job_events(service: Service, uuid: str) -> list[dict[str, Any]]:
    return eventually(
        lambda: (found := events(service, uuid=uuid)) and len(found) > 1 and found, "its lines"
    )


def test_a_job_has_a_line_at_its_start_and_one_at_its_end(logged: Service) -> None:
    headers = {"X-Request-ID": "my-own.id:1"}
    reply = logged.post({"prompt": MARK, "width": 128, "num_inference_steps": 3}, headers=headers)
    assert reply.headers["X-Request-ID"] == "my-own.id:1"
    uuid = reply.json()["generation_uuid"]
    logged.result(uuid)
    start, end = job_events(logged, uuid)
    assert (start["message"], end["message"]) == ("job accepted", "job ended")
    for event in (start, end):
        assert set(FIELDS) <= event.keys() and event["time"].endswith("+00:00")
        assert (event["request_id"], event["door"]) == ("my-own.id:1", "native")
        assert (event["owner"], event["width"], event["steps"]) == (None, 128, 3)
    assert (start["outcome"], end["outcome"]) == (None, "succeeded")
    assert (end["model"], end["worker"], end["attempt"]) == ("instant", "gpu-0", 1)
    assert end["seconds"] >= 0 and end["queued_s"] >= 0 and end["height"] == 64


def test_a_job_that_is_sent_again_has_no_second_start(logged: Service) -> None:
    headers = {"Idempotency-Key": "the-same"}
    uuids = {logged.post({"prompt": "a"}, headers=headers).json()["generation_uuid"]}
    logged.result(*uuids)
    uuids.add(logged.post({"prompt": "a"}, headers=headers).json()["generation_uuid"])
    assert len(uuids) == 1 and len(job_events(logged, *uuids)) == 2


@pytest.mark.parametrize(
    ("agent", "fetch", "door"),
    [
        ("sde-client/1", "", "cli"),
        ("curl/8", "", "native"),
        ("Mozilla", "same-origin", "page"),
        ("Mozilla", "none", "native"),
    ],
)
def test_the_door_of_a_job(logged: Service, agent: str, fetch: str, door: str) -> None:
    logged.wait_available()
    headers = {"User-Agent": agent, "Sec-Fetch-Site": fetch}
    uuid = logged.post({"prompt": "a"}, headers=headers).json()["generation_uuid"]
    logged.result(uuid)
    assert {event["door"] for event in job_events(logged, uuid)} == {door}
    assert f'sde_jobs_ended_total{{door="{door}",state="succeeded"}}' in logged.get("/metrics").text


@pytest.mark.parametrize(
    "text", ["", "a b", "a\tb", "-x", "x" * 129, 'a"b', "a=b", "é", "a,b", "{}", "x;y", "%0a"]
)
def test_an_ill_formed_request_id_is_replaced(logged: Service, text: str) -> None:
    """Row 56: an id could begin a line, or fill the log."""
    reply = requests.get(
        f"{logged.url}/nowhere", headers={"X-Request-ID": text.encode()}, timeout=30
    )
    assert re.fullmatch("[0-9a-f]{32}", reply.headers["X-Request-ID"])
    assert events(logged, request_id=reply.headers["X-Request-ID"])[0]["outcome"] == "refused"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind", "fields"),
    [
        ("POST", "/image/generate", {"prompt": MARK, "width": 3}, 422, "invalid-request", "width"),
        ("POST", "/image/generate", {"prompt": MARK * 500}, 422, "invalid-request", "prompt"),
        ("POST", "/image/generate", {"prompt": f"{MARK}\x07"}, 422, "invalid-request", "prompt"),
        ("POST", "/image/generate", {MARK: 1, "prompt": "a"}, 422, "invalid-request", "unknown"),
        ("POST", "/image/generate", {"prompt": {"x": MARK}}, 422, "invalid-request", "prompt"),
        ("POST", "/image/generate", MARK, 422, "invalid-request", "body"),
        ("POST", f"/image/generate?{MARK}=1", {"prompt": "a"}, 400, "invalid-request", None),
        ("GET", f"/{MARK}%0a%0dERROR", None, 404, "not-found", None),
        ("PUT", "/server/status", None, 405, "method-not-allowed", None),
        ("GET", f"/image/jobs/{NEVER}", None, 404, "unknown-job", None),
    ],
)
def test_a_refusal_has_one_line_without_words_of_the_client(
    logged: Service,
    method: str,
    path: str,
    body: object,
    status: int,
    kind: str,
    fields: str | None,
) -> None:
    """Row 56."""
    reply = requests.request(method, logged.url + path, json=body, timeout=30)
    assert reply.status_code == status
    (event,) = events(logged, request_id=reply.json()["request_id"])
    assert (event["message"], event["outcome"]) == ("request refused", "refused")
    assert event["status"] == status and set(FIELDS) <= event.keys()
    if fields is not None:
        assert (event["type"], event["fields"]) == (f"urn:sde:problem:{kind}", fields)
    assert MARK not in text_of(logged) + text_of(logged, "gpu_worker")


def test_a_refused_job_says_what_it_would_have_been(folder: Path) -> None:
    with running(
        folder,
        "gateway",
        "gpu_worker",
        SDE_PIPELINE="tests.pipelines.held:load",
        SDE_LOG_FORMAT="json",
    ) as service:
        service.submit()
        reply = service.post({"prompt": MARK, "width": 512, "num_inference_steps": 7})
        assert reply.status_code == 429
        (event,) = events(service, request_id=reply.headers["X-Request-ID"])
        assert (event["width"], event["steps"]) == (512, 7)
        assert event["type"] == "urn:sde:problem:no-idle-worker"
        assert event["route"] == "/image/generate"
        assert MARK not in service.output()


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_prompt_stays_on_its_line_even_where_it_is_logged(folder: Path, form: str) -> None:
    """Row 56: with SDE_LOG_PROMPTS=1 the prompt is there, and its control characters are not."""
    prompt = FORGED.replace("\x85", "")  # the request's own check refuses C1
    with running(
        folder, "gateway", "gpu_worker", SDE_LOG_FORMAT=form, SDE_LOG_PROMPTS="1"
    ) as service:
        service.result(service.submit(prompt))
        eventually(lambda: "job ended" in text_of(service), "the last line")
        lines = text_of(service).splitlines()
        assert sum("forged" in line for line in lines) == 2
        assert not any(line.startswith("2026-01-01") for line in lines)
        assert all(line.isprintable() for line in lines)
        if form == "json":
            assert {event["prompt"] for event in events(service, outcome="succeeded")} == {prompt}


def test_no_prompt_is_logged_whatever_becomes_of_the_job(folder: Path) -> None:
    """A job that fails has its reason in the log, without the words of the request."""
    with running(
        folder, "gateway", "gpu_worker", SDE_PIPELINE="tests.pipelines.raises:load"
    ) as service:
        service.result(service.submit(f"raise {MARK}"))
        service.wait_available()
        service.result(service.submit(f"fine {MARK}", negative_prompt=f"not {MARK}"))
        eventually(lambda: "outcome=succeeded" in text_of(service), "the last line")
        assert "error=" in text_of(service) and "outcome=failed" in text_of(service)
        assert MARK not in service.output()


def test_the_worker_has_the_same_form(logged: Service) -> None:
    lines = [json.loads(line) for line in text_of(logged, "gpu_worker").splitlines()]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()


# ---- the form itself --------------------------------------------------------------------------


def record(message: str, error: Exception | None = None, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("a.b", logging.ERROR, "", 0, message, None, None)
    if error is not None:
        try:
            raise error
        except type(error):
            made.exc_info = sys.exc_info()
    made.fields = fields
    return made


ODD = ["a\nb", "\x1b[2J", "\x00", "\r", "\x7f", "\x85", "\u2028", "\u202e", "\ud800", "\ufeff"]


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_no_character_controls_a_line(text: str) -> None:
    """Row 56, in a message, a field, its name's value and the words of an exception."""
    event = record(f"x{text}y", ValueError(f"bad {text}\n2026 ERROR x: forged"), value=text)
    plain = TextFormatter(SecretFilter({})).format(event)
    head, *trace = plain.split("\n")
    assert head.isprintable() and trace and all(line.startswith("    ") for line in trace)
    assert all(line.isprintable() for line in trace)
    line = JsonFormatter(SecretFilter({})).format(event)
    assert line.isascii() and line.isprintable()
    members = json.loads(line)
    assert members["value"] == text and "forged" in members["traceback"]
    assert printable(text).isprintable()


@pytest.mark.parametrize("value", ["", "-", "a b", "a=b", '"', "a\tb"])
def test_a_value_is_told_from_the_next_name(value: str) -> None:
    line = TextFormatter(SecretFilter({})).format(record("m", one=value, two=None, three=True))
    quoted = re.fullmatch(r'.* m one=("(?:[^"\\]|\\.)*") two=- three=true', line)
    assert quoted and json.loads(quoted[1].replace("\\\\", "\\")) == value


SECRETS = {
    "HF_TOKEN": "hf-canary-12345",
    "SDE_API_KEY": "key-canary-12345",
    "DB_PASSWORD": "word canary",
    "AWS_SECRET": "  padded-canary  ",
    "MY_KEYS": "keys-canary",
}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("kind", [TextFormatter, JsonFormatter])
def test_a_secret_of_the_environment_is_in_no_line(name: str, kind: Any) -> None:
    """Row 57, in a message, a field and a traceback."""
    secret = SECRETS[name]
    line = kind(SecretFilter(SECRETS)).format(
        record(f"a {secret} b", ValueError(f"no {secret}"), value=f"({secret})")
    )
    assert "canary" not in line and "***" in line


@pytest.mark.parametrize(
    "text",
    [
        "http://user:canary@proxy:8080/x",
        "Authorization: Bearer canary.canary",
        "authorization: basic Y2FuYXJ5canary==",
        "token hf_canaryCANARY123",
    ],
)
def test_what_has_the_form_of_a_secret_is_hidden(text: str) -> None:
    assert "canary" not in SecretFilter({})(text)


def test_ordinary_values_of_the_environment_stay() -> None:
    hide = SecretFilter({"HF_TOKEN": "on", "PATH": "/usr/bin", "KEYBOARD": "qwertz-layout"})
    assert hide("on /usr/bin qwertz-layout") == "on /usr/bin qwertz-layout"


def test_a_reader_that_has_stopped_costs_lines_and_not_the_process() -> None:
    """supervisord may be stopped; then its pipe fills, and no thread may wait for it."""
    reader, writer = os.pipe()
    handler = LineHandler(writer)
    handler.setFormatter(TextFormatter(SecretFilter({})))
    for number in range(3000):
        handler.handle(record(f"line {number} " + "x" * 100))
    content = b""
    os.set_blocking(reader, False)
    while len(content) < 3000 * 100:
        try:
            content += os.read(reader, 65536)
        except BlockingIOError:
            handler.handle(record("the end"))
            if b"the end" in content:
                break
    lines = content.decode().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT", line) for line in lines if line)
    assert "lines=" in next(line for line in lines if "dropped" in line)
    os.close(reader)
    handler.handle(record("nobody reads this"))
    os.close(writer)


def test_a_torn_line_is_followed_by_a_whole_one() -> None:
    reader, writer = os.pipe()
    handler = LineHandler(writer)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.handle(record("x" * 200_000))
    content = b""
    while len(content) < 60_000:
        content += os.read(reader, 65536)
    handler.handle(record("whole"))
    content += os.read(reader, 65536)
    assert content.decode().splitlines()[1] == "whole"
    os.close(reader)
    os.close(writer)


def test_a_protocol_error_has_no_prompt() -> None:
    """The text of a validation error shows its input, and that may be logged."""
    from gpu_worker.contract import protocol

    frame = json.dumps(
        {"v": 5, "op": "submit", "deadline": 1, "job": {"request": {"prompt": MARK}}}
    )
    with pytest.raises(protocol.ProtocolError) as caught:
        protocol.decode_request(frame.encode())
    assert MARK not in str(caught.value)


def test_the_setting_has_two_values() -> None:
    assert log_format.Format.__args__ == ("text", "json")  # type: ignore[attr-defined]
