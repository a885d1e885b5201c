"""Keeps the job table: a bounded queue, states, and who is next. No HTTP, no ZeroMQ, no disk.

HTTP threads reserve, enqueue and look; the dispatcher of each worker observes, takes and ends.
"""

from __future__ import annotations

import secrets
import uuid as uuids
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from gateway.errors import NoIdleWorker, QueueFull
from gateway.jobs import assignment, eta
from gateway.jobs.job_entry import (
    UNKNOWN_CALLER,
    Caller,
    JobEntry,
    JobObserver,
    JobState,
    JobView,
    iso_time,
)
from gateway.jobs.queue import NOT_WAITING, ChangeCondition, JobQueue
from gateway.jobs.worker_table import WorkerTable
from gpu_worker.contract.job import Job
from gpu_worker.contract.protocol import WorkerStatus
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.store.exit_report import ExitReport

SEED_LIMIT = 2**32
"""Seeds chosen here have 32 bits, as A1111's have, so that other tools can reuse them."""


class Broker:
    """The table of all jobs and the status of all workers. Thread-safe.

    Args:
        queue_size: how many jobs may wait beside those that run; 0 is version 1's one at a time.
        queue_per_key: how many of them one key may have; 0: all.
        last_sequence: the highest sequence number that was ever assigned.
        observer: learns of each job that is accepted, dispatched and ended.
    """

    def __init__(
        self,
        workers: list[str],
        queue_size: int,
        last_sequence: int = 0,
        *,
        queue_per_key: int = 0,
        observer: JobObserver | None = None,
        new_uuid: Callable[[], str] = lambda: str(uuids.uuid4()),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._workers = WorkerTable(workers)
        self._queue_size = queue_size
        self._queue_per_key = queue_per_key
        self._sequence = last_sequence
        self._new_uuid, self._now = new_uuid, now
        self._observer = observer
        self._changed = ChangeCondition()
        self._reserved_by: Counter[str | None] = Counter()
        self._queue = JobQueue()

    def available(self) -> bool:
        """Return whether a job accepted now would start at once."""
        with self._changed:
            return self._free() > 0

    def reserve(
        self,
        request: GenerationRequest,
        submission: str | None = None,
        owner: str | None = None,
        *,
        may_wait: bool = True,
    ) -> Job:
        """Reserve a place in the queue for a request, and choose its seed when it has none.

        The caller must call enqueue() or give_up() afterwards.

        Args:
            may_wait: whether the job may wait; otherwise it must be able to start at once.

        Raises:
            NoWorker: no worker answers, or none could load its model.
            QueueFull: every worker is busy or loading, and the queue or the key's part is full.
        """
        with self._changed:
            self._workers.check()
            retry_after_s = eta.retry_after_s(self._workers.answering())
            if not may_wait and self._queue_size and self._free() <= 0:
                raise NoIdleWorker(retry_after_s)
            if self._free() + self._queue_size <= 0:
                raise QueueFull(retry_after_s)
            if self._has_full_share(owner):
                raise QueueFull(retry_after_s, owner)
            if request.seed is None:
                request = request.model_copy(update={"seed": secrets.randbelow(SEED_LIMIT)})
            self._reserved_by[owner] += 1
            self._sequence += 1
            return Job(
                uuid=self._new_uuid(),
                sequence=self._sequence,
                created_time=iso_time(self._now()),
                request=request,
                submission=submission,
                owner=owner,
            )

    def _has_full_share(self, owner: str | None) -> bool:
        """Return whether no further job of this key may wait. All senders without one share."""
        waiting = self._queue.waiting_of(owner) + self._reserved_by[owner]
        return self._free() <= 0 and 0 < self._queue_per_key <= waiting

    def enqueue(self, job: Job, caller: Caller = UNKNOWN_CALLER) -> None:
        """Queue the reserved job, which is on disk now."""
        entry = JobEntry(job, caller)
        if self._observer is not None:
            self._observer.accepted(entry)
        with self._changed:
            self._reserved_by[job.owner] -= 1
            self._queue.add(entry)
            self._changed.notify_all()

    def give_up(self, job: Job) -> None:
        """Free the place of a reserved job, because it could not be written."""
        with self._changed:
            self._reserved_by[job.owner] -= 1
            self._changed.notify_all()

    def restore(self, job: Job, worker: str | None, cancel: bool) -> None:
        """Add a job of the previous run. With a worker, that worker is to finish it."""
        with self._changed:
            entry = JobEntry(job, cancel=cancel)
            if worker is not None:
                entry.state, entry.worker, entry.dispatched = JobState.RUNNING, worker, True
            self._queue.add(entry)

    def view(self, uuid: str, wait_s: float = 0, last_view: JobView | None = None) -> JobView:
        """Return the view of a job: now, or when it differs from the last view.

        Args:
            wait_s: seconds to wait for a difference at most.
            last_view: the view that the caller has; None returns the view of now.

        Raises:
            UnknownJob: the job is not in the table.
        """
        with self._changed:
            baseline = last_view or self._view(uuid)
            if wait_s > 0 and not baseline.state.ended:
                self._changed.wait_for(lambda: self._view(uuid).differs(baseline), wait_s)
            return self._view(uuid)

    def views(self, limit: int) -> list[JobView]:
        """Return the newest jobs of the table, newest first."""
        with self._changed:
            positions = self._queue.positions()
            return [self._view(each.job.uuid, positions) for each in self._queue.newest(limit)]

    def listen(self, listener: Callable[[], None]) -> None:
        """Have a function called at each change. It is called under the lock and must not wait."""
        self._changed.listener = listener

    def arrivals(self) -> int:
        """Return how many jobs have come into the table."""
        with self._changed:
            return self._queue.arrivals

    def changes(
        self, uuids: Iterable[str], arrival: int
    ) -> tuple[int, list[tuple[JobEntry, JobView]]]:
        """Return the jobs that have not ended, those of `uuids`, and all that came since.

        Args:
            arrival: what arrivals(), or the last call, has returned.
        """
        with self._changed:
            positions = self._queue.positions()
            entries = self._queue.current(uuids, arrival)
            views = [(each, self._view(each.job.uuid, positions)) for each in entries]
            return self._queue.arrivals, views

    def workers(self) -> dict[str, WorkerStatus | None]:
        """Return the last status of each worker, None for one that does not answer."""
        with self._changed:
            return dict(self._workers.statuses)

    def exits(self) -> dict[str, ExitReport]:
        """Return how the process of each worker ended last."""
        with self._changed:
            return dict(self._workers.exits)

    def queue_length(self) -> int:
        """Return how many jobs wait."""
        with self._changed:
            return len(self._queue.waiting)

    def live_jobs(self) -> dict[tuple[str, str | None], int]:
        """Return how many jobs are queued and running, by state and door."""
        with self._changed:
            return self._queue.live()

    def mismatches(self) -> dict[str, str]:
        """Return a sentence for each worker that speaks another version of the protocol."""
        with self._changed:
            return dict(self._workers.mismatches)

    def cancel(self, uuid: str) -> JobEntry:
        """Mark a job as canceled. A queued one leaves the queue, and the caller must end() it.

        Raises:
            UnknownJob: the job is not in the table.
        """
        with self._changed:
            entry = self._queue.find(uuid)
            if not entry.state.ended:
                entry.cancel = True
                self._queue.dequeue(entry)
                self._changed.notify_all()
            return entry

    def forget(self, uuid: str) -> None:
        """Remove a job whose result was deleted, even if end() has not been called yet."""
        with self._changed:
            self._queue.forget(uuid)
            self._changed.notify_all()

    def requeue(self, entry: JobEntry, cancel: bool) -> None:
        """Queue a job again that could not be ended or dispatched."""
        with self._changed:
            if entry.state.ended or self._queue.get(entry.job.uuid) is not entry:
                return
            self._queue.release(entry)
            entry.state, entry.worker = JobState.QUEUED, None
            entry.cancel = entry.cancel or cancel  # it may have been canceled since
            self._queue.enqueue(entry)
            self._changed.notify_all()

    def observe(
        self, worker: str, status: WorkerStatus | None, mismatch: str | None = None
    ) -> None:
        """Store a worker's status; None: it did not answer.

        Args:
            mismatch: a sentence if it answered in another version of the protocol.
        """
        with self._changed:
            has_changed = self._workers.observe(worker, status, mismatch)
            if status is not None:
                for entry in self._queue.running(worker):
                    slot = status.slot(entry.job.uuid)
                    if slot is not None:
                        entry.observe(slot, status.trouble)
            if has_changed:
                self._changed.notify_all()

    def observe_exit(self, worker: str, report: ExitReport) -> None:
        """Store how a worker's process ended last."""
        with self._changed:
            self._workers.exits[worker] = report

    def running(self, worker: str) -> list[JobEntry]:
        """Return the jobs that this worker is to finish."""
        with self._changed:
            return self._queue.running(worker)

    def take(self, worker: str) -> JobEntry | None:
        """Assign a waiting job to a worker and return it; None when there is none for it."""
        with self._changed:
            free = {worker: self._free_slots(worker)}
            choice = assignment.choose(self._queue.waiting, free)
            if choice is None:
                return None
            self._queue.assign(choice.entry, choice.worker)
            choice.entry.start(self._now())
            self._changed.notify_all()
        if self._observer is not None:
            self._observer.dispatched(choice.entry)
        return choice.entry

    def wants_end(self, uuid: str) -> bool:
        """Return whether a job that a worker holds should end; the caller cancels it there."""
        with self._changed:
            entry = self._queue.get(uuid)
            if entry is None or not (entry.cancel or entry.state.ended):
                return False
            entry.cancel_sent = True
            return True

    def end(self, uuid: str, record: dict[str, Any], step_s: float | None = None) -> None:
        """Store the outcome of a job from its first record.

        A job that is not in the table is ignored: a previous run knew it, or it was deleted.

        Args:
            step_s: the mean seconds of its steps, if its worker has measured them.
        """
        with self._changed:
            entry = self._queue.get(uuid)
            if entry is None or entry.state.ended:
                return
            self._queue.release(entry)
            entry.end(record)
            self._queue.forget_old()
            self._changed.notify_all()
        if self._observer is not None:
            self._observer.ended(entry, record, step_s)

    def wait_for_work(self, worker: str, timeout_s: float) -> None:
        """Sleep until this worker can take a job or must cancel one, for `timeout_s` at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_work(worker), timeout_s)

    def _view(self, uuid: str, positions: dict[str, tuple[int, int]] | None = None) -> JobView:
        entry = self._queue.find(uuid)
        if entry.state.ended:
            return entry.view(None, None)
        if positions is None:
            position, steps = self._queue.position(entry)
        else:
            position, steps = positions.get(uuid, NOT_WAITING)
        own = self._workers.statuses.get(entry.worker or "")
        return entry.view(position, eta.eta_s(entry.job, steps, own, self._workers.answering()))

    def _has_work(self, worker: str) -> bool:
        if any(entry.cancel and not entry.cancel_sent for entry in self._queue.running(worker)):
            return True
        return bool(self._queue.waiting) and self._free_slots(worker) > 0

    def _free_slots(self, worker: str) -> int:
        """Return how many slots neither hold a job nor have one assigned."""
        status = self._workers.statuses[worker]
        if status is None:
            return 0
        assigned = [
            entry for entry in self._queue.running(worker) if status.slot(entry.job.uuid) is None
        ]
        return max(0, status.free_slots - len(assigned))

    def _free(self) -> int:
        free = sum(map(self._free_slots, self._workers.statuses))
        return free - len(self._queue.waiting) - self._reserved_by.total()
