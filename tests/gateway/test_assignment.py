"""Which job goes where, and a table of workers that hold several jobs."""

from __future__ import annotations

import pytest

from gateway.jobs.assignment import choose
from gateway.jobs.broker import Broker
from gateway.jobs.job_entry import JobEntry, JobState
from gpu_worker.contract.protocol import SlotStatus, WorkerState, WorkerStatus
from gpu_worker.contract.request import GenerationRequest
from tests.support.journal_jobs import job


def status(capacity: int, *uuids: str, state: WorkerState = WorkerState.BUSY) -> WorkerStatus:
    return WorkerStatus(
        state=state,
        boot_id="b",
        log="",
        committed=0,
        capacity=capacity,
        slots=[SlotStatus(uuid=uuid, step=1, steps=10) for uuid in uuids],
    )


def submitted(broker: Broker) -> str:
    accepted = broker.reserve(GenerationRequest(prompt="a"))
    broker.enqueue(accepted)
    return accepted.uuid


@pytest.mark.parametrize(
    ("free_slots", "worker"),
    [
        ({}, None),
        ({"gpu-0": 0}, None),
        ({"gpu-0": 1}, "gpu-0"),
        ({"gpu-0": 0, "gpu-1": 2}, "gpu-1"),
        ({"gpu-0": 1, "gpu-1": 2}, "gpu-0"),
    ],
)
def test_the_oldest_job_goes_to_the_first_free_worker(
    free_slots: dict[str, int], worker: str | None
) -> None:
    waiting = [JobEntry(job(1)), JobEntry(job(2))]
    choice = choose(waiting, free_slots)
    assert (choice and choice.worker) == worker
    assert choice is None or choice.entry is waiting[0]
    assert choose([], free_slots) is None


def test_a_worker_gets_as_many_jobs_as_it_has_slots() -> None:
    broker = Broker(["gpu-0"], 9)
    broker.observe("gpu-0", status(2, state=WorkerState.IDLE))
    first, second, third = (submitted(broker) for _ in range(3))
    assert not broker.available()
    taken = [broker.take("gpu-0"), broker.take("gpu-0")]
    assert [each.job.uuid for each in taken if each] == [first, second]
    assert broker.take("gpu-0") is None
    broker.observe("gpu-0", status(2, first, second))
    assert [each.job.uuid for each in broker.running("gpu-0")] == [first, second]
    assert broker.view(second).step == 1
    broker.observe("gpu-0", status(2, second))
    assert broker.take("gpu-0") is None  # the first is its own still, until its outcome is read
    broker.end(first, {"uuid": first, "state": "succeeded", "created_time": "", "errors": []})
    entry = broker.take("gpu-0")
    assert entry is not None and entry.job.uuid == third
    assert broker.view(first).state is JobState.SUCCEEDED


def test_each_of_several_running_jobs_is_canceled_by_itself() -> None:
    broker = Broker(["gpu-0"], 9)
    broker.observe("gpu-0", status(2, state=WorkerState.IDLE))
    first, second = submitted(broker), submitted(broker)
    broker.take("gpu-0"), broker.take("gpu-0")
    broker.observe("gpu-0", status(2, first, second))
    broker.cancel(second)
    assert [broker.wants_end(uuid) for uuid in (first, second)] == [False, True]


def test_a_loading_worker_has_no_free_slot() -> None:
    assert status(3, state=WorkerState.LOADING).free_slots == 0
    assert status(3, "a").free_slots == 2
    assert status(1, "a", "b").free_slots == 0
