"""Holds every job that the broker knows and the queue of waiting ones. It has no lock."""

from __future__ import annotations

import bisect
from collections import OrderedDict

from gateway.errors import UnknownJob
from gateway.jobs.job_entry import JobEntry, JobState

KEPT_ENDED = 10_000
"""Ended jobs that stay in the table. Older ones are answered from the result log."""

NOT_WAITING: tuple[None, None] = (None, None)
"""The position of a job that does not wait."""


class JobQueue:
    """Job entries by uuid. `waiting` is in the order of acceptance. The broker holds its lock."""

    def __init__(self) -> None:
        self.waiting: list[JobEntry] = []
        self._entries: OrderedDict[str, JobEntry] = OrderedDict()
        self._running: dict[str, dict[str, JobEntry]] = {}

    def add(self, entry: JobEntry) -> None:
        """Add a job: a queued one to the queue, a running one to its worker."""
        self._entries[entry.job.uuid] = entry
        if entry.state is JobState.QUEUED:
            self.enqueue(entry)
        elif entry.state is JobState.RUNNING:
            self.assign(entry, entry.worker or "")

    def enqueue(self, entry: JobEntry) -> None:
        """Insert a job by its sequence number."""
        bisect.insort(self.waiting, entry, key=_sequence)

    def dequeue(self, entry: JobEntry) -> None:
        """Remove a job from the queue if it waits."""
        index = self._index(entry)
        if index is not None:
            del self.waiting[index]

    def assign(self, entry: JobEntry, worker: str) -> None:
        """Assign the job to the worker that is to finish it."""
        self.dequeue(entry)
        entry.state, entry.worker = JobState.RUNNING, worker
        self._running.setdefault(worker, {})[entry.job.uuid] = entry

    def running(self, worker: str) -> list[JobEntry]:
        """Return the jobs that this worker is to finish, in the order of their assignment."""
        return list(self._running.get(worker, {}).values())

    def release(self, entry: JobEntry) -> None:
        """Remove the job from the queue and from its worker."""
        self.dequeue(entry)
        self._running.get(entry.worker or "", {}).pop(entry.job.uuid, None)

    def position(self, entry: JobEntry) -> tuple[int | None, int | None]:
        """Return how many jobs wait before it and their steps, or NOT_WAITING."""
        index = self._index(entry)
        if index is None:
            return NOT_WAITING
        return index, sum(each.job.request.steps for each in self.waiting[:index])

    def positions(self) -> dict[str, tuple[int, int]]:
        """Return position() of all waiting jobs by uuid."""
        positions: dict[str, tuple[int, int]] = {}
        steps = 0
        for index, entry in enumerate(self.waiting):
            positions[entry.job.uuid] = (index, steps)
            steps += entry.job.request.steps
        return positions

    def find(self, uuid: str) -> JobEntry:
        """Return a job. Raises UnknownJob."""
        entry = self._entries.get(uuid)
        if entry is None:
            raise UnknownJob(uuid)
        return entry

    def get(self, uuid: str | None) -> JobEntry | None:
        """Return a job; None when it is not in the table."""
        return self._entries.get(uuid) if uuid else None

    def newest(self, limit: int) -> list[JobEntry]:
        """Return the newest jobs by acceptance, newest first."""
        return sorted(self._entries.values(), key=_sequence, reverse=True)[:limit]

    def forget(self, uuid: str) -> None:
        """Remove a job from the table."""
        entry = self._entries.pop(uuid, None)
        if entry is not None:
            self.release(entry)

    def forget_old(self) -> None:
        """Remove the oldest ended job if the table has more than KEPT_ENDED entries."""
        if len(self._entries) > KEPT_ENDED:
            oldest = next((each for each in self._entries.values() if each.state.ended), None)
            if oldest is not None:
                self._entries.pop(oldest.job.uuid)

    def _index(self, entry: JobEntry) -> int | None:
        index = bisect.bisect_left(self.waiting, _sequence(entry), key=_sequence)
        is_there = index < len(self.waiting) and self.waiting[index] is entry
        return index if is_there else None


def _sequence(entry: JobEntry) -> int:
    return entry.job.sequence
