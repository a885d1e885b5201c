"""How long until: from the measured time of a step. Pure functions of what the table holds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gpu_worker.contract.job import Job
from gpu_worker.contract.protocol import WorkerStatus

UNMEASURED_STEP_S = 0.2


def step_s(statuses: Sequence[WorkerStatus]) -> float:
    """Seconds a step: the mean of what the workers have measured."""
    measured = [status.step_s for status in statuses if status.step_s]
    return sum(measured) / len(measured) if measured else UNMEASURED_STEP_S


def left_s(status: WorkerStatus, mean_step_s: float) -> float:
    """Seconds until a worker has done its steps."""
    return (status.steps - status.step) * (status.step_s or mean_step_s)


def retry_after_s(statuses: Sequence[WorkerStatus]) -> int:
    """Whole seconds until a place is free: the soonest worker's steps (RFC 9110, 10.2.3)."""
    mean = step_s(statuses)
    left = [left_s(status, mean) for status in statuses if status.state == "busy"]
    return max(1, math.ceil(min(left, default=1.0)))


def eta_s(
    job: Job, ahead_steps: int | None, own: WorkerStatus | None, all_: Sequence[WorkerStatus]
) -> float:
    """Seconds until a job has ended.

    Args:
        ahead_steps: of the jobs before it in the queue; None when it is not in the queue.
        own: the status of the worker that has it, None before it has begun.
        all_: of every worker that can be reached.
    """
    mean = step_s(all_)
    if own is not None:
        return round(left_s(own, mean), 3)
    steps = job.request.steps
    if ahead_steps is None:
        return round(steps * mean, 3)
    before = [left_s(status, mean) for status in all_ if status.state == "busy"]
    waiting = ahead_steps * mean
    return round(min(before, default=0.0) + waiting / max(1, len(all_)) + steps * mean, 3)
