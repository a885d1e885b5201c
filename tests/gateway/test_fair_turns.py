"""Keys take turns in the queue, and none takes it all."""

from __future__ import annotations

import itertools
import random

import pytest

from gateway.errors import QueueFull
from gateway.jobs.broker import Broker
from gpu_worker.contract.protocol import SlotStatus, WorkerState, WorkerStatus
from gpu_worker.contract.request import GenerationRequest

IDLE = WorkerStatus(state=WorkerState.IDLE, boot_id="b", log="", committed=0)
OTHER = SlotStatus(uuid="00000000-0000-4000-8000-000000000001", step=1, steps=10)
BUSY = IDLE.model_copy(update={"state": WorkerState.BUSY, "slots": [OTHER]})


def broker(queue_size: int = 100, queue_per_key: int = 0) -> Broker:
    """One worker, which is busy with something else."""
    made = Broker(["gpu-0"], queue_size, queue_per_key=queue_per_key)
    made.observe("gpu-0", BUSY)
    return made


def submit(made: Broker, owner: str | None) -> str:
    job = made.reserve(GenerationRequest(prompt="a"), None, owner)
    made.enqueue(job)
    return job.uuid


def drain(made: Broker) -> list[str]:
    """The uuids in the order in which one idle worker gets them, each ended at once."""
    made.observe("gpu-0", IDLE)
    order: list[str] = []
    while True:
        entry = made.take("gpu-0")
        if entry is None:
            return order
        order.append(entry.job.uuid)
        record = {"uuid": entry.job.uuid, "state": "succeeded", "created_time": "", "errors": []}
        made.end(entry.job.uuid, record)


def test_a_second_key_does_not_wait_for_all_jobs_of_the_first() -> None:
    made = broker()
    first = [submit(made, "a") for _ in range(4)]
    second = [submit(made, "b") for _ in range(2)]
    expected = [first[0], second[0], first[1], second[1], first[2], first[3]]
    assert [made.view(uuid).position for uuid in expected] == [0, 1, 2, 3, 4, 5]
    assert drain(made) == expected


def test_a_running_job_counts_as_its_keys_turn() -> None:
    made = Broker(["gpu-0", "gpu-1"], 100)
    for worker in ("gpu-0", "gpu-1"):
        made.observe(worker, IDLE)
    running = submit(made, "a")
    assert made.take("gpu-0") is not None
    more = submit(made, "a")
    other = submit(made, "b")
    taken = made.take("gpu-1")
    assert taken is not None and taken.job.uuid == other
    assert made.view(more).position == 0 and made.view(running).position is None


@pytest.mark.parametrize("owners", [["a"], [None], [None, None]])
def test_one_sender_is_served_in_order(owners: list[str | None]) -> None:
    made = broker()
    order = [submit(made, owner) for owner in itertools.islice(itertools.cycle(owners), 9)]
    assert drain(made) == order


@pytest.mark.parametrize("seed", range(20))
def test_no_key_is_ahead_of_its_turn_and_each_keeps_its_order(seed: int) -> None:
    choose = random.Random(seed)
    made = broker()
    owner_of = {}
    for _ in range(40):
        owner = choose.choice(["a", "b", "c", None])
        owner_of[submit(made, owner)] = owner
    positions = sorted(owner_of, key=lambda uuid: made.view(uuid).position or 0)
    turns = dict.fromkeys(owner_of.values(), 0)
    turn_of = []
    for uuid in positions:
        turn_of.append(turns[owner_of[uuid]])
        turns[owner_of[uuid]] += 1
    assert turn_of == sorted(turn_of)
    for owner in turns:
        own = [uuid for uuid in owner_of if owner_of[uuid] == owner]
        assert [uuid for uuid in positions if owner_of[uuid] == owner] == own


def test_canceled_jobs_cost_no_turn() -> None:
    made = broker()
    for uuid in [submit(made, "a") for _ in range(9)]:
        made.cancel(uuid)
    others = [submit(made, "b") for _ in range(3)]
    own = submit(made, "a")
    assert drain(made) == [others[0], own, *others[1:]]


def test_a_job_that_comes_back_keeps_its_turn() -> None:
    made = broker()
    first, second = submit(made, "a"), submit(made, "a")
    made.observe("gpu-0", IDLE)
    entry = made.take("gpu-0")
    assert entry is not None
    other = submit(made, "b")
    made.requeue(entry, cancel=False)
    assert drain(made) == [first, other, second]


def test_one_keys_part_is_bounded_and_the_others_is_not() -> None:
    made = broker(queue_size=5, queue_per_key=2)
    submit(made, "a")
    submit(made, "a")
    with pytest.raises(QueueFull, match="the key a has as many waiting jobs"):
        submit(made, "a")
    made.reserve(GenerationRequest(prompt="a"), None, "b")
    submit(made, "b")
    with pytest.raises(QueueFull, match="the key b has as many waiting jobs"):
        submit(made, "b")
    submit(made, None)
    with pytest.raises(QueueFull, match="the queue is full"):
        submit(made, "c")
