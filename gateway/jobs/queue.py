"""Holds every job that the broker knows and the queue of waiting ones. The broker has the lock.

ChangeCondition is that lock: it tells threads and a listener of each change.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator

from gateway.errors import UnknownJob
from gateway.jobs.job_entry import JobEntry, JobState

KEPT_ENDED = 10_000
"""Ended jobs that stay in the table. Older ones are answered from the result log."""

NOT_WAITING: tuple[None, None] = (None, None)
"""The position of a job that does not wait."""


class ChangeCondition(threading.Condition):
    """A condition that also calls a listener, which must not wait."""

    listener: Callable[[], None] | None = None

    def notify_all(self) -> None:
        """Wake all threads that wait, and call the listener."""
        super().notify_all()
        if self.listener is not None:
            self.listener()


class JobQueue:
    """Job entries by uuid. The broker holds its lock.

    `waiting` is in the order of the jobs' turns. Keys take turns by start-time fair queueing
    (Goyal, Vin and Cheng, 1996): a job's turn is that of its key's previous job plus one, but not
    before the turn that is served now. Jobs of one key keep their order, and so do those without.
    """

    def __init__(self) -> None:
        self.waiting: list[JobEntry] = []
        self._turn = 0
        self._of_owner: dict[str | None, list[JobEntry]] = {}
        self.arrivals = 0
        self._entries: OrderedDict[str, JobEntry] = OrderedDict()
        self._running: dict[str, dict[str, JobEntry]] = {}

    def add(self, entry: JobEntry) -> None:
        """Add a job: a queued one to the queue, a running one to its worker."""
        self.arrivals += 1
        entry.arrival = self.arrivals
        self._entries[entry.job.uuid] = entry
        if entry.state is JobState.QUEUED:
            self.enqueue(entry)
        elif entry.state is JobState.RUNNING:
            self.assign(entry, entry.worker or "")

    def enqueue(self, entry: JobEntry) -> None:
        """Insert a job by its turn; one that has been in the queue before keeps its turn."""
        own = self._of_owner.setdefault(entry.job.owner, [])
        place = bisect.bisect_left(own, _sequence(entry), key=_sequence)
        if entry.turn is None and place < len(own):
            entry.turn = own[place].turn  # two threads may bring their jobs in the other order
        elif entry.turn is None:
            entry.turn = self._next_turn(entry.job.owner, own)
        own.insert(place, entry)
        bisect.insort(self.waiting, entry, key=_place)

    def _next_turn(self, owner: str | None, own: list[JobEntry]) -> int:
        before = [entry for entry in (*own[-1:], *self._all_running()) if entry.job.owner == owner]
        return max([self._turn, *((entry.turn or 0) + 1 for entry in before)])

    def dequeue(self, entry: JobEntry) -> None:
        """Remove a job from the queue if it waits."""
        index = self._index(entry)
        if index is None:
            return
        del self.waiting[index]
        own = self._of_owner[entry.job.owner]
        del own[bisect.bisect_left(own, _sequence(entry), key=_sequence)]
        if not own:
            del self._of_owner[entry.job.owner]

    def assign(self, entry: JobEntry, worker: str) -> None:
        """Assign the job to the worker that is to finish it."""
        self.dequeue(entry)
        self._turn = max(self._turn, entry.turn or 0)
        entry.state, entry.worker = JobState.RUNNING, worker
        self._running.setdefault(worker, {})[entry.job.uuid] = entry

    def waiting_of(self, owner: str | None) -> int:
        """Return how many jobs of one key wait."""
        return len(self._of_owner.get(owner, ()))

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

    def live(self) -> Counter[tuple[str, str | None]]:
        """Count the queued and running jobs by state and door."""
        entries = itertools.chain(self.waiting, self._all_running())
        return Counter((each.state.value, each.caller.door) for each in entries)

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

    def current(self, uuids: Iterable[str], arrival: int) -> list[JobEntry]:
        """Return the jobs that wait or run, those of `uuids`, and all that came after `arrival`.

        They are in the order of their arrival.
        """
        live = itertools.chain(self.waiting, self._all_running())
        entries = {entry.job.uuid: entry for entry in live}
        entries |= {uuid: self._entries[uuid] for uuid in uuids if uuid in self._entries}
        for entry in reversed(self._entries.values()):
            if entry.arrival <= arrival:
                break
            entries[entry.job.uuid] = entry
        return sorted(entries.values(), key=lambda entry: entry.arrival)

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

    def _all_running(self) -> Iterator[JobEntry]:
        return (entry for jobs in self._running.values() for entry in jobs.values())

    def _index(self, entry: JobEntry) -> int | None:
        if entry.turn is None:
            return None
        index = bisect.bisect_left(self.waiting, _place(entry), key=_place)
        is_there = index < len(self.waiting) and self.waiting[index] is entry
        return index if is_there else None


def _place(entry: JobEntry) -> tuple[int, int]:
    return entry.turn or 0, entry.job.sequence


def _sequence(entry: JobEntry) -> int:
    return entry.job.sequence
