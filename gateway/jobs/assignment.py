"""Decides which waiting job goes to which worker. It changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.jobs.job_entry import JobEntry


class Assignment(NamedTuple):
    """A job and the name of the worker that gets it."""

    entry: JobEntry
    worker: str


def choose(waiting: Sequence[JobEntry], free_slots: Mapping[str, int]) -> Assignment | None:
    """Return the next assignment; None when no job waits or no worker is free.

    Args:
        waiting: the jobs in the order of their turns.
        free_slots: how many more jobs each worker takes. The first free one gets the first job.
    """
    worker = next((name for name, count in free_slots.items() if count > 0), None)
    if worker is None or not waiting:
        return None
    return Assignment(waiting[0], worker)
