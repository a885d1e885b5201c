"""Keeps the job table: a bounded queue, states, and who is next. No HTTP, no ZeroMQ, no disk.

HTTP threads reserve, enqueue and look; the dispatcher of each worker observes, takes and ends.
"""

from __future__ import annotations

import secrets
import threading
import uuid as uuids
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from gateway.errors import NoWorker, QueueFull
from gateway.jobs import assignment, eta
from gateway.jobs.job_entry import JobEntry, JobState, JobView, iso_time
from gateway.jobs.queue import NOT_WAITING, JobQueue
from gpu_worker.contract.job import Job
from gpu_worker.contract.protocol import WorkerState, WorkerStatus
from gpu_worker.contract.request import GenerationRequest

LOAD_RETRY_S = 30
"""The advice to clients while no model can be loaded. Workers try again once a minute."""

SEED_LIMIT = 2**32
"""Seeds chosen here have 32 bits, as A1111's have, so that other tools can reuse them."""


class Broker:
    """The table of all jobs and the status of all workers. Thread-safe.

    Args:
        queue_size: how many jobs may wait beside those that run; 0 is version 1's one at a time.
        last_sequence: the highest sequence number that was ever assigned.
    """

    def __init__(
        self,
        workers: list[str],
        queue_size: int,
        last_sequence: int = 0,
        *,
        new_uuid: Callable[[], str] = lambda: str(uuids.uuid4()),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._workers: dict[str, WorkerStatus | None] = dict.fromkeys(workers)
        self._queue_size = queue_size
        self._sequence = last_sequence
        self._new_uuid, self._now = new_uuid, now
        self._changed = threading.Condition()
        self._reserved = 0
        self._queue = JobQueue()

    # ---- HTTP threads -------------------------------------------------------------------------

    def available(self) -> bool:
        """Return whether a job accepted now would start at once."""
        with self._changed:
            return self._free() > 0

    def reserve(self, request: GenerationRequest, submission: str | None = None) -> Job:
        """Reserve a place in the queue for a request, and choose its seed when it has none.

        The caller must call enqueue() or give_up() afterwards.

        Raises:
            NoWorker: no worker answers, or none could load its model.
            QueueFull: every worker is busy or loading, and the queue is full.
        """
        with self._changed:
            if not any(self._workers.values()):
                raise NoWorker(retry_after_s=5)
            load_error = self._load_error()
            if load_error is not None:
                raise NoWorker(LOAD_RETRY_S, load_error)
            if self._free() + self._queue_size <= 0:
                raise QueueFull(eta.retry_after_s(self._statuses()))
            if request.seed is None:
                request = request.model_copy(update={"seed": secrets.randbelow(SEED_LIMIT)})
            self._reserved += 1
            self._sequence += 1
            return Job(
                uuid=self._new_uuid(),
                sequence=self._sequence,
                created_time=iso_time(self._now()),
                request=request,
                submission=submission,
            )

    def _load_error(self) -> str | None:
        """Return the reason if every worker that answers has failed to load its first model."""
        statuses = self._statuses()
        failed = [
            each.load_error
            for each in statuses
            if each.state is WorkerState.LOADING and each.load_error
        ]
        return failed[0] if failed and len(failed) == len(statuses) else None

    def enqueue(self, job: Job) -> None:
        """Queue the reserved job, which is on disk now."""
        with self._changed:
            self._reserved -= 1
            self._queue.add(JobEntry(job))
            self._changed.notify_all()

    def give_up(self) -> None:
        """Free the reserved place, because the job could not be written."""
        with self._changed:
            self._reserved -= 1
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

    def workers(self) -> dict[str, WorkerStatus | None]:
        """Return the last status of each worker, None for one that does not answer."""
        with self._changed:
            return dict(self._workers)

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

    # ---- dispatcher threads -------------------------------------------------------------------

    def observe(self, worker: str, status: WorkerStatus | None) -> None:
        """Store a worker's status; None: it did not answer."""
        with self._changed:
            before, self._workers[worker] = self._workers[worker], status
            if status is not None:
                for entry in self._queue.running(worker):
                    slot = status.slot(entry.job.uuid)
                    if slot is not None:
                        entry.observe(slot, status.trouble)
            if status != before:
                self._changed.notify_all()

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
            choice.entry.started_time = iso_time(self._now())
            self._changed.notify_all()
            return choice.entry

    def wants_end(self, uuid: str) -> bool:
        """Return whether a job that a worker holds should end; the caller cancels it there."""
        with self._changed:
            entry = self._queue.get(uuid)
            if entry is None or not (entry.cancel or entry.state.ended):
                return False
            entry.cancel_sent = True
            return True

    def end(self, uuid: str, record: dict[str, Any]) -> None:
        """Store the outcome of a job from its first record.

        A job that is not in the table is ignored: a previous run knew it, or it was deleted.
        """
        with self._changed:
            entry = self._queue.get(uuid)
            if entry is None or entry.state.ended:
                return
            self._queue.release(entry)
            entry.end(record)
            self._queue.forget_old()
            self._changed.notify_all()

    def wait_for_work(self, worker: str, timeout_s: float) -> None:
        """Sleep until this worker can take a job or must cancel one, for `timeout_s` at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_work(worker), timeout_s)

    # ---- under the lock -----------------------------------------------------------------------

    def _view(self, uuid: str, positions: dict[str, tuple[int, int]] | None = None) -> JobView:
        entry = self._queue.find(uuid)
        if entry.state.ended:
            return entry.view(None, None)
        if positions is None:
            position, steps = self._queue.position(entry)
        else:
            position, steps = positions.get(uuid, NOT_WAITING)
        own = self._workers.get(entry.worker or "")
        return entry.view(position, eta.eta_s(entry.job, steps, own, self._statuses()))

    def _has_work(self, worker: str) -> bool:
        if any(entry.cancel and not entry.cancel_sent for entry in self._queue.running(worker)):
            return True
        return bool(self._queue.waiting) and self._free_slots(worker) > 0

    def _free_slots(self, worker: str) -> int:
        """Return how many slots neither hold a job nor have one assigned."""
        status = self._workers[worker]
        if status is None:
            return 0
        assigned = [
            entry for entry in self._queue.running(worker) if status.slot(entry.job.uuid) is None
        ]
        return max(0, status.free_slots - len(assigned))

    def _free(self) -> int:
        free = sum(map(self._free_slots, self._workers))
        return free - len(self._queue.waiting) - self._reserved

    def _statuses(self) -> list[WorkerStatus]:
        return [status for status in self._workers.values() if status is not None]
