"""Estimates times from the measured time of a step. Pure functions of the workers' statuses."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gpu_worker.contract.job import Job
from gpu_worker.contract.protocol import SlotStatus, WorkerStatus

UNMEASURED_STEP_S = 0.2


def step_s(statuses: Sequence[WorkerStatus]) -> float:
    """Return seconds a step: the mean of what the workers have measured."""
    measured = [status.step_s for status in statuses if status.step_s]
    return sum(measured) / len(measured) if measured else UNMEASURED_STEP_S


def left_s(slot: SlotStatus, step_s: float) -> float:
    """Return seconds until a worker has done a job's steps."""
    return (slot.steps - slot.step) * step_s


def soonest_s(statuses: Sequence[WorkerStatus]) -> float | None:
    """Return seconds until a full worker has a free slot; None when no worker is full."""
    mean = step_s(statuses)
    left = [
        left_s(slot, status.step_s or mean)
        for status in statuses
        if not status.free_slots
        for slot in status.slots
    ]
    return min(left, default=None)


def retry_after_s(statuses: Sequence[WorkerStatus]) -> int:
    """Return whole seconds until a slot is free, for Retry-After (RFC 9110, section 10.2.3)."""
    soonest = soonest_s(statuses)
    return max(1, math.ceil(1.0 if soonest is None else soonest))


def eta_s(
    job: Job, steps_before: int | None, own: WorkerStatus | None, statuses: Sequence[WorkerStatus]
) -> float:
    """Return seconds until a job has ended.

    Args:
        steps_before: of the jobs before it in the queue; None when it is not in the queue.
        own: the status of the worker that holds it, None before one does.
        statuses: of every worker that can be reached.
    """
    mean = step_s(statuses)
    slot = own.slot(job.uuid) if own is not None else None
    if own is not None and slot is not None:
        return round(left_s(slot, own.step_s or mean), 3)
    steps = job.request.steps
    if steps_before is None:
        return round(steps * mean, 3)
    waiting = steps_before * mean / max(1, len(statuses))
    return round((soonest_s(statuses) or 0.0) + waiting + steps * mean, 3)
