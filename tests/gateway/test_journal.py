"""The gateway's journal and job table: what they remember, whatever is cut, full or set back."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.jobs.broker import Broker
from gateway.jobs.journal import Journal
from gateway.store import journal_event
from gpu_worker.contract.protocol import WorkerState, WorkerStatus
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.store import durable
from gpu_worker.store.durable import DamagedLine
from tests.support.disk import Crash, FaultyDisk
from tests.support.journal_jobs import job

IDLE = WorkerStatus(state=WorkerState.IDLE, boot_id="b", log="l", committed=0)


def opened(path: Path, compact_bytes: int = 1 << 20) -> Journal:
    journal = Journal(path, compact_bytes)
    journal.open()
    return journal


def remembered(journal: Journal) -> tuple[object, ...]:
    return journal.pending, journal.submissions, journal.deleted, journal.last_sequence


def filled(path: Path, compact_bytes: int = 1 << 20) -> Journal:
    journal = opened(path, compact_bytes)
    for number in range(20):
        journal.accept(job(number))
        if number % 3 == 0:
            journal.dispatch(job(number).uuid, "gpu-0")
        if number % 5 == 0:
            journal.cancel(job(number).uuid)
    journal.delete({job(number).uuid: job(number).submission for number in (1, 2)})
    return journal


def test_what_was_written_is_remembered(tmp_path: Path) -> None:
    before = filled(tmp_path / "j" / "jobs.jsonl")
    after = opened(tmp_path / "j" / "jobs.jsonl")
    assert remembered(after) == remembered(before)
    assert after.pending[job(0).uuid].worker == "gpu-0" and after.pending[job(0).uuid].cancel
    assert after.deleted == {job(1).uuid, job(2).uuid}
    assert after.last_sequence == 19 and after.submissions[f"{7:032x}"] == (job(7).uuid, "f" * 32)


def lived(path: Path, compact_bytes: int) -> Journal:
    """A journal whose jobs have all ended, in the log and not here."""
    journal = filled(path, compact_bytes)
    for number in range(20, 120):
        journal.accept(job(number))
        journal.end(job(number - 20).uuid)
    for number in range(100, 120):
        journal.end(job(number).uuid)
    return journal


def test_a_compacted_journal_says_the_same_in_fewer_bytes(tmp_path: Path) -> None:
    path, whole = tmp_path / "jobs.jsonl", tmp_path / "whole" / "jobs.jsonl"
    journal = lived(path, compact_bytes=3000)
    assert remembered(journal) == remembered(lived(whole, compact_bytes=1 << 30))
    assert path.stat().st_size < whole.stat().st_size / 2
    assert journal.pending == {} and len(journal.submissions) == 2
    after = opened(path)
    assert after.deleted == journal.deleted and after.last_sequence == 119
    assert journal.submissions.items() <= after.submissions.items()


def test_cut_at_any_byte_only_the_last_event_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    journal = opened(path)
    journal.accept(job(1))
    whole = path.read_bytes()
    journal.accept(job(2))
    both = path.read_bytes()
    for cut in range(len(whole), len(both)):
        path.write_bytes(both[:cut])
        again = opened(path)
        assert list(again.pending) == [job(1).uuid]
        again.accept(job(3))
        assert list(opened(path).pending) == [job(1).uuid, job(3).uuid]


@pytest.mark.parametrize("call", ["write", "fdatasync"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_what_the_disk_did_not_take_has_not_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: int
) -> None:
    journal = filled(tmp_path / "jobs.jsonl")
    before = (tmp_path / "jobs.jsonl").read_bytes()

    def fails(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fails)
        with pytest.raises(OSError):
            journal.accept(job(50))
    assert job(50).uuid not in journal.pending and f"{50:032x}" not in journal.submissions
    assert (tmp_path / "jobs.jsonl").read_bytes() == before
    journal.accept(job(50))
    assert job(50).uuid in opened(tmp_path / "jobs.jsonl").pending


def test_a_compaction_that_fails_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.jsonl"

    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fails)
        journal = filled(path, compact_bytes=1000)
    assert remembered(opened(path)) == remembered(journal)


def test_a_clock_that_jumps_changes_no_order() -> None:
    times = iter(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=d) for d in (0, 365, -365, 1))
    broker = Broker(["gpu-0"], queue_size=9, now=lambda: next(times))
    broker.observe("gpu-0", IDLE)
    request = GenerationRequest(prompt="a")
    jobs = [broker.reserve(request) for _ in range(3)]
    for each in reversed(jobs):
        broker.enqueue(each)
    assert [each.sequence for each in jobs] == [1, 2, 3]
    assert [view.uuid for view in broker.views(9)] == [each.uuid for each in reversed(jobs)]
    taken = broker.take("gpu-0")
    assert taken is not None and taken.job == jobs[0]


def test_ten_thousand_waiting_jobs_are_looked_at_quickly() -> None:
    broker = Broker(["gpu-0"], queue_size=10_000)
    broker.observe("gpu-0", IDLE)
    request = GenerationRequest(prompt="a", num_inference_steps=2)
    jobs = [broker.reserve(request) for _ in range(5_000)]
    for each in jobs:
        broker.enqueue(each)
    calls = 0

    def counted(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(counted)
    views = broker.views(1000)
    sys.setprofile(None)
    assert [view.position for view in views] == list(range(4999, 3999, -1))
    assert broker.view(jobs[3].uuid).eta_s > broker.view(jobs[2].uuid).eta_s
    assert calls < 100_000, "the work grows with jobs, not with their square"


@pytest.mark.parametrize("vice", ["error", "short", "before", "after"])
def test_no_failing_call_loses_an_accepted_job(tmp_path: Path, vice: str) -> None:
    """As in test_results.py: the 1st, 2nd ... Nth call fails, or is the death."""
    for number in range(1, 500):
        path = tmp_path / str(number) / "jobs.jsonl"
        accepted: list[str] = []
        refused: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            disk = FaultyDisk(patch, number, vice)
            with contextlib.suppress(Crash, OSError):
                journal = opened(path, compact_bytes=1500)
                for count in range(10):
                    try:
                        journal.accept(job(count))
                        accepted.append(job(count).uuid)
                    except OSError:
                        refused.append(job(count).uuid)
            untouched = 0 <= disk.calls < number
        again = opened(path)
        assert [uuid for uuid in accepted if uuid not in again.pending] == [], number
        assert [uuid for uuid in refused if uuid in again.pending] == [], number
        again.accept(job(99))
        assert job(99).uuid in opened(path).pending
        if untouched:
            assert number > 20
            return
    raise AssertionError("the work never passed untouched")


@pytest.mark.parametrize(
    "body",
    [
        b'{"v":1',
        b'{"v":1,"event":null',
        b'{"v":1,"event":["deleted"],"uuid":"a"',
        b'{"v":1,"event":{"deleted":1}',
        b'{"v":2,"event":"deleted","uuid":"a"',
        b'{"v":1,"event":"deleted","uuid":7',
    ],
)
def test_a_line_of_another_version_is_damaged_and_no_fault(body: bytes) -> None:
    with pytest.raises(DamagedLine):
        journal_event.decode(durable.with_checksum(body))
