"""Rows 23, 33 and 55: decoders give back what was encoded, and raise only what they document.

`python -m tests.support.fuzz` runs for longer.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from gateway.jobs import journal
from gateway.store import journal_event
from gpu_worker.contract import protocol
from gpu_worker.contract.job import Job, Source
from gpu_worker.contract.protocol import (
    Reply,
    Request,
    SlotStatus,
    WorkerState,
    WorkerStatus,
)
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.store import durable, record_line
from tests.support import fuzz
from tests.support.fuzz import TARGETS
from tests.support.service import ROOT

settings.register_profile(
    "house",
    database=None,
    deadline=None,
    max_examples=60,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("house")

TEXT = some.text(some.characters(exclude_categories=["Cs"]), max_size=40)
PROMPT = some.text(
    some.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40
).filter(str.strip)
COUNT = some.integers(0, 2**63 - 1)
SEQUENCE = some.integers(0, 10**18 - 1)
UUID = some.uuids(version=4).map(str)
HEX = some.text("0123456789abcdef", min_size=32, max_size=32)
SUBMISSION = some.none() | some.tuples(HEX, HEX).map(":".join)
SECONDS = some.floats(0, 1e12)

REQUEST = some.builds(
    GenerationRequest,
    prompt=PROMPT,
    negative_prompt=PROMPT | some.just(""),
    seed=some.none() | some.integers(0, 2**53 - 17),
    guidance_scale=some.none() | some.floats(0, 50),
    num_inference_steps=some.none() | some.integers(1, 500),
    width=some.none() | some.integers(8, 256).map(lambda n: n * 8),
)
SOURCE = some.none() | some.builds(Source, uuid=UUID, image_index=some.integers(0, 9))
JOB = some.builds(
    Job,
    uuid=UUID,
    sequence=SEQUENCE,
    created_time=TEXT,
    request=REQUEST,
    submission=SUBMISSION,
    source=SOURCE,
)
SLOT = some.builds(SlotStatus, uuid=TEXT, step=COUNT, steps=COUNT, attempt=COUNT)
STATUS = some.builds(
    WorkerStatus,
    state=some.sampled_from(WorkerState),
    boot_id=TEXT,
    log=TEXT,
    committed=COUNT,
    capacity=COUNT,
    slots=some.lists(SLOT, max_size=3),
    step_s=some.none() | SECONDS,
    trouble=some.none() | TEXT,
    versions=some.dictionaries(TEXT, TEXT, max_size=3),
    memory_bytes=some.none() | COUNT,
)
MESSAGES = some.one_of(
    some.builds(Request, op=some.sampled_from(["status", "describe", "unload"]), deadline=SECONDS),
    some.builds(Request, op=some.just("submit"), deadline=SECONDS, job=JOB),
    some.builds(Request, op=some.just("cancel"), deadline=SECONDS, uuid=UUID),
    some.builds(Request, op=some.just("rotate"), deadline=SECONDS, log=TEXT),
    some.builds(Request, op=some.just("load"), deadline=SECONDS, model=some.none() | TEXT),
)


@given(MESSAGES)
def test_a_request_comes_back(message: Request) -> None:
    assert protocol.decode_request(protocol.encode(message)) == message


@given(some.builds(Reply, status=STATUS, accepted=some.booleans(), error=some.none() | TEXT))
def test_a_reply_comes_back(message: Reply) -> None:
    assert protocol.decode_reply(protocol.encode(message)) == message


EVENTS = some.one_of(
    JOB.map(lambda job: {"event": "accepted", "job": job.model_dump(mode="json")}),
    some.tuples(UUID, TEXT).map(
        lambda pair: {"event": "dispatched", "uuid": pair[0], "worker": pair[1]}
    ),
    UUID.map(lambda uuid: {"event": "cancel", "uuid": uuid}),
    some.tuples(UUID, SUBMISSION).map(
        lambda pair: {"event": "deleted", "uuid": pair[0], "submission": pair[1]}
    ),
    SEQUENCE.map(lambda number: {"event": "sequence", "sequence": number}),
)


@given(EVENTS)
def test_an_event_of_the_journal_comes_back(event: dict[str, Any]) -> None:
    line = journal_event.encode(event)
    decoded = journal_event.decode(line)
    assert decoded | event == decoded and decoded["v"] == journal_event.VERSION
    if event["event"] == "accepted":
        assert journal.read_job(decoded["job"]).model_dump(mode="json") == event["job"]


DATA = some.none() | some.text("ABCDwxyz0189+/=", max_size=60)
NUMBERS = some.integers(1, 16).flatmap(
    lambda count: some.tuples(some.integers(0, count - 1), some.just(count))
)


@given(UUID, TEXT, DATA, SEQUENCE, NUMBERS, SUBMISSION, some.lists(TEXT, max_size=2))
def test_a_record_comes_back(
    uuid: str,
    prompt: str,
    data: str | None,
    sequence: int,
    numbers: tuple[int, int],
    submission: str | None,
    errors: list[str],
) -> None:
    record = {
        "uuid": uuid,
        "prompt": prompt,
        "created_time": "2026-01-01T00:00:00+00:00",
        "errors": errors,
        "data": data,
        "state": "succeeded",
        "sequence": sequence,
        "image_index": numbers[0],
        "num_images": numbers[1],
        "submission": submission,
    }
    line = record_line.encode(record)
    parsed = record_line.parse(line)
    assert (parsed.uuid, parsed.sequence, parsed.submission) == (uuid, sequence, submission)
    assert (parsed.image_index, parsed.num_images) == numbers
    text = line[parsed.data_at : parsed.data_at + parsed.data_length]
    assert text.decode() == (data or "")
    decoded = orjson.loads(line)
    assert {key: decoded[key] for key in record} == record


@pytest.mark.parametrize("name", TARGETS)
@given(data=some.binary(max_size=300))
def test_any_bytes_raise_what_is_documented(name: str, data: bytes) -> None:
    TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_examples_raise_what_is_documented(name: str) -> None:
    assert fuzz.run_plain(name, seconds=0.5) > 20


@pytest.mark.parametrize("name", TARGETS)
def test_the_examples_themselves_are_valid(name: str) -> None:
    valid = fuzz.examples(TARGETS[name])
    assert valid
    for each in valid:
        TARGETS[name].decode(each)


LONG = b"9" * 5000


@pytest.mark.parametrize(
    "body",
    [
        b'"format":1,"state":"succeeded","sequence":' + LONG,
        b'"format":' + LONG + b',"state":"succeeded","sequence":1',
        b'"format":1,"state":"succeeded","sequence":9999999999999999999',
        b'"format":1,"state":"succeeded","sequence":1,"image_index":0,"num_images":0',
    ],
)
def test_a_record_with_a_number_out_of_range_is_damaged(body: bytes) -> None:
    uuid = b"00000000-0000-4000-8000-000000000001"
    head = b'{"uuid":"' + uuid + b'","prompt":"","created_time":"","errors":[],"data":null,'
    with pytest.raises(durable.DamagedLine):
        record_line.parse(durable.with_checksum(head + body))


@pytest.mark.parametrize(
    "event",
    [
        {"v": 1, "event": "deleted", "uuid": "a"},
        {"v": 1, "event": "deleted", "uuid": "0" * 36, "submission": 5},
        {"v": 1, "event": "sequence", "sequence": True},
        {"v": 1, "event": "sequence", "sequence": -1},
        {"v": 1, "event": "sequence", "sequence": 10**18},
        {"v": True, "event": "sequence", "sequence": 1},
        {"v": 1.0, "event": "sequence", "sequence": 1},
        {"v": 0, "event": "sequence", "sequence": 1},
        {"v": 1, "event": "accepted", "job": []},
    ],
)
def test_an_event_with_a_wrong_member_is_damaged(event: dict[str, Any]) -> None:
    line = durable.with_checksum(orjson.dumps(event)[:-1])
    with pytest.raises(durable.DamagedLine) as caught:
        journal_event.decode(line)
    assert not isinstance(caught.value, durable.NewerLine)


def test_the_fuzzer_prints_counts_and_times() -> None:
    command = [sys.executable, "-m", "tests.support.fuzz", "--plain", "--seconds", "0.5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()[1:]] == list(TARGETS)
    assert done.stdout.count("no error") == len(TARGETS)
