"""The slots of a worker and their notes on disk, with room for one job and for several."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_worker.contract.protocol import ModelCommand, WorkerState
from gpu_worker.control.slots import ForbiddenTransition, Slots
from gpu_worker.store.in_flight import InFlight, InFlightJob
from tests.support.journal_jobs import job


def ready(capacity: int = 1) -> Slots:
    slots = Slots(("gpu-0.00000001.jsonl", 0), capacity)
    slots.ready()
    return slots


def test_so_many_jobs_are_held() -> None:
    slots = ready(2)
    jobs = [job(number) for number in range(3)]
    assert [slots.offer(each) for each in jobs] == [True, True, False]
    assert slots.offer(jobs[1])  # the gateway asks again when it missed the reply
    slots.release(jobs[0].uuid, ("gpu-0.00000001.jsonl", 9))
    view = slots.view()
    assert (view.state, view.committed) == (WorkerState.BUSY, 9)
    assert [held.job for held in view.held] == [jobs[1]]
    assert slots.offer(jobs[2])
    for each in jobs[1:]:
        slots.release(each.uuid, ("gpu-0.00000001.jsonl", 9))
    assert slots.view().state is WorkerState.IDLE


def test_steps_and_cancellation_are_a_jobs_own() -> None:
    slots = ready(2)
    first, second = job(1), job(2)
    slots.offer(first), slots.offer(second)
    slots.advance(second.uuid, 3, 20, 0.5)
    assert slots.cancel(second.uuid) and not slots.cancel("another")
    assert slots.progress(second.uuid) == {"step": 3, "steps": 20}
    assert slots.progress(first.uuid)["step"] == 0
    assert [slots.is_canceled(each.uuid) for each in (first, second)] == [False, True]


def test_jobs_of_an_earlier_process_are_held_however_many() -> None:
    slots = Slots()
    for number in (1, 2):
        slots.resume(job(number), attempt=2)
    assert slots.view().state is WorkerState.BUSY
    assert not slots.offer(job(3))


def test_a_command_is_for_an_idle_worker() -> None:
    slots = ready()
    assert slots.request_command(ModelCommand(unload=True))
    assert not slots.offer(job(1)) and not slots.request_command(ModelCommand("x"))
    assert slots.take_command() == ModelCommand(unload=True)
    slots.ready()
    slots.offer(job(1))
    assert not slots.request_command(ModelCommand("x"))


def test_a_forbidden_transition_is_a_sentence() -> None:
    with pytest.raises(ForbiddenTransition, match="to become idle the worker must be loading"):
        ready().ready()


def test_each_job_has_its_own_note(tmp_path: Path) -> None:
    notes, other = InFlight(tmp_path, "gpu-0"), InFlight(tmp_path, "gpu-10")
    for number in (2, 1):
        notes.write(InFlightJob(attempt=1, job=job(number)))
    other.write(InFlightJob(attempt=1, job=job(9)))
    assert [note.job.sequence for note in notes.read()] == [1, 2]
    notes.remove(job(1).uuid)
    notes.remove(job(1).uuid)
    assert [note.job.sequence for note in notes.read()] == [2]
    notes.clear()
    assert notes.read() == [] and len(other.read()) == 1
