"""Every job the broker knows, and the queue of those that wait. The broker holds the lock."""

from __future__ import annotations

import bisect
from collections import OrderedDict

from gateway.errors import UnknownJob
from gateway.jobs.job_entry import JobEntry, JobState

KEPT_ENDED = 10_000
"""Ended jobs that stay in the table; older ones are still answered from the result log."""

NOT_WAITING: tuple[None, None] = (None, None)
"""The position of a job that does not wait."""


class JobQueue:
    """Entries by uuid. `waiting` is in the order of acceptance."""

    def __init__(self) -> None:
        self.waiting: list[JobEntry] = []
        self._entries: OrderedDict[str, JobEntry] = OrderedDict()
        self._running: dict[str, dict[str, JobEntry]] = {}

    def add(self, entry: JobEntry) -> None:
        """A new job; a queued one joins the queue, a running one is its worker's."""
        self._entries[entry.job.uuid] = entry
        if entry.state is JobState.QUEUED:
            self.enqueue(entry)
        elif entry.state is JobState.RUNNING:
            self.assign(entry, entry.worker or "")

    def enqueue(self, entry: JobEntry) -> None:
        """Put a job where its sequence number belongs."""
        bisect.insort(self.waiting, entry, key=_sequence)

    def dequeue(self, entry: JobEntry) -> None:
        """Take a job out of the queue, if it waits."""
        index = self._index(entry)
        if index is not None:
            del self.waiting[index]

    def assign(self, entry: JobEntry, worker: str) -> None:
        """From now on the job is that worker's to finish."""
        self.dequeue(entry)
        entry.state, entry.worker = JobState.RUNNING, worker
        self._running.setdefault(worker, {})[entry.job.uuid] = entry

    def running(self, worker: str) -> list[JobEntry]:
        """The jobs that are this worker's to finish, in the order in which it got them."""
        return list(self._running.get(worker, {}).values())

    def release(self, entry: JobEntry) -> None:
        """The job neither waits nor is anybody's to finish any more."""
        self.dequeue(entry)
        self._running.get(entry.worker or "", {}).pop(entry.job.uuid, None)

    def position(self, entry: JobEntry) -> tuple[int | None, int | None]:
        """How many jobs wait before it, and how many steps those want; None when it does not
        wait."""
        index = self._index(entry)
        if index is None:
            return NOT_WAITING
        return index, sum(each.job.request.steps for each in self.waiting[:index])

    def positions(self) -> dict[str, tuple[int, int]]:
        """position() of all that wait, by uuid."""
        positions: dict[str, tuple[int, int]] = {}
        steps = 0
        for index, entry in enumerate(self.waiting):
            positions[entry.job.uuid] = (index, steps)
            steps += entry.job.request.steps
        return positions

    def find(self, uuid: str) -> JobEntry:
        """Raises UnknownJob."""
        entry = self._entries.get(uuid)
        if entry is None:
            raise UnknownJob(uuid)
        return entry

    def get(self, uuid: str | None) -> JobEntry | None:
        """None when it is not there."""
        return self._entries.get(uuid) if uuid else None

    def newest(self, limit: int) -> list[JobEntry]:
        """By acceptance, newest first."""
        return sorted(self._entries.values(), key=_sequence, reverse=True)[:limit]

    def forget(self, uuid: str) -> None:
        """The job is no longer answered from here."""
        entry = self._entries.pop(uuid, None)
        if entry is not None:
            self.release(entry)

    def forget_old(self) -> None:
        """Keep KEPT_ENDED entries at most."""
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
