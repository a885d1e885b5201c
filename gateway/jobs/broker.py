"""The job table: a bounded queue, states, and who is next. Knows no HTTP, no ZeroMQ and no disk.

Thread-safe: HTTP threads reserve, enqueue, look; one dispatcher a worker observes, takes, ends.
"""

from __future__ import annotations

import secrets
import threading
import uuid as uuids
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from gateway.errors import NoWorker, QueueFull
from gateway.jobs import eta
from gateway.jobs.job_entry import JobEntry, JobState, iso_time
from gateway.jobs.queue import NOT_WAITING, JobQueue
from gpu_worker.contract.job import Job
from gpu_worker.contract.protocol import WorkerStatus
from gpu_worker.contract.request import GenerationRequest

SEED_LIMIT = 2**32
"""Seeds that we draw stay within 32 bits, as A1111's do, so that other tools can reuse them."""

_WATCHED_FIELDS = ("state", "position", "step", "attempts", "cancel_requested")
"""What is worth waking for."""

View = dict[str, Any]


class Broker:
    """One table for all workers.

    Args:
        queue_size: jobs that may wait beyond those that run; 0 is the seed's one at a time.
        last_sequence: the highest sequence number that was ever given.
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
        self._table = JobQueue()

    # ---- HTTP threads -------------------------------------------------------------------------

    def available(self) -> bool:
        """Whether a job accepted now would start at once."""
        with self._changed:
            return self._free() > 0

    def reserve(self, request: GenerationRequest, submission: str | None = None) -> Job:
        """Keep a place for a request; its seed is drawn here when it has none.

        enqueue() or give_up() must follow.

        Raises:
            NoWorker: none can be reached.
            QueueFull: all are busy or loading, and the queue is full.
        """
        with self._changed:
            if not any(self._workers.values()):
                raise NoWorker(retry_after_s=5)
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

    def enqueue(self, job: Job) -> None:
        """The reserved job is on disk: it may run."""
        with self._changed:
            self._reserved -= 1
            self._table.add(JobEntry(job))
            self._changed.notify_all()

    def give_up(self) -> None:
        """The reserved job could not be written: its place is free again."""
        with self._changed:
            self._reserved -= 1
            self._changed.notify_all()

    def restore(self, job: Job, worker: str | None, cancel: bool) -> None:
        """A job of an earlier life of the gateway; with a worker, it is that one's to finish."""
        with self._changed:
            ticket = JobEntry(job, cancel=cancel)
            if worker is not None and worker not in self._table.running:
                ticket.state, ticket.worker, ticket.dispatched = JobState.RUNNING, worker, True
                self._table.running[worker] = ticket
            self._table.add(ticket)

    def view(self, uuid: str, wait_s: float = 0, told: View | None = None) -> View:
        """The job as GET /image/jobs/{uuid} shows it; when it differs from what the caller was
        told (None: from now), or after so many seconds. Raises UnknownJob: not in the table."""
        with self._changed:
            seen = told or self._view(uuid)

            def moved() -> bool:
                now = self._view(uuid)
                return any(now[key] != seen[key] for key in _WATCHED_FIELDS)

            if wait_s > 0 and not JobState(seen["state"]).ended:
                self._changed.wait_for(moved, wait_s)
            return self._view(uuid)

    def views(self, limit: int) -> list[dict[str, Any]]:
        """The newest jobs of the table, newest first."""
        with self._changed:
            line = self._table.line()
            return [self._view(ticket.job.uuid, line) for ticket in self._table.newest(limit)]

    def workers(self) -> dict[str, WorkerStatus | None]:
        """The last status of each worker; None: it cannot be reached."""
        with self._changed:
            return dict(self._workers)

    def cancel(self, uuid: str) -> JobEntry:
        """Want the end of a job: a queued one leaves the queue at once, for the caller to end().

        Raises:
            UnknownJob: it is not in the table.
        """
        with self._changed:
            ticket = self._table.find(uuid)
            if not ticket.state.ended:
                ticket.cancel = True
                self._table.leave_line(ticket)
                self._changed.notify_all()
            return ticket

    def forget(self, uuid: str) -> None:
        """A job's result has been deleted: it had its outcome, even where end() is yet to come."""
        with self._changed:
            self._table.forget(uuid)
            self._changed.notify_all()

    def requeue(self, ticket: JobEntry, cancel: bool) -> None:
        """The canceled job could not be ended, or the taken one not be dispatched: it waits on."""
        with self._changed:
            if ticket.state.ended or self._table.get(ticket.job.uuid) is not ticket:
                return
            self._table.leave(ticket)
            ticket.state, ticket.worker = JobState.QUEUED, None
            ticket.cancel = ticket.cancel or cancel  # asked for meanwhile, perhaps
            self._table.stand_in_line(ticket)
            self._changed.notify_all()

    # ---- dispatcher threads -------------------------------------------------------------------

    def observe(self, worker: str, status: WorkerStatus | None) -> None:
        """Remember what a worker said, or that it said nothing."""
        with self._changed:
            before, self._workers[worker] = self._workers[worker], status
            ticket = self._table.running.get(worker)
            if status and ticket and status.uuid == ticket.job.uuid:
                ticket.observe(status)
            if status != before:
                self._changed.notify_all()

    def running(self, worker: str) -> JobEntry | None:
        """The job that is this worker's to finish."""
        with self._changed:
            return self._table.running.get(worker)

    def take(self, worker: str) -> JobEntry | None:
        """Give the next waiting job to an idle worker; None when there is none or it is busy."""
        with self._changed:
            if not self._table.waiting or not self._is_free(worker):
                return None
            ticket = self._table.waiting.pop(0)
            ticket.state, ticket.worker = JobState.RUNNING, worker
            ticket.started_time = iso_time(self._now())
            self._table.running[worker] = ticket
            self._changed.notify_all()
            return ticket

    def unwanted(self, status: WorkerStatus) -> bool:
        """Whether the job that a worker holds should end; the worker is told by the caller."""
        with self._changed:
            ticket = self._table.get(status.uuid)
            if ticket is None or not (ticket.cancel or ticket.state.ended):
                return False
            ticket.told = True
            return True

    def end(self, uuid: str, record: dict[str, Any]) -> None:
        """The job has its outcome, and this is its first record; one that is not ours is a former
        gateway's, or its result has been deleted meanwhile: passed over."""
        with self._changed:
            ticket = self._table.get(uuid)
            if ticket is None or ticket.state.ended:
                return
            self._table.leave(ticket)
            ticket.end(record)
            self._table.forget_old()
            self._changed.notify_all()

    def wait_for_work(self, worker: str, timeout_s: float) -> None:
        """Sleep until this worker could take a job or its job is to be ended, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_wanted(worker), timeout_s)

    # ---- under the lock -----------------------------------------------------------------------

    def _view(self, uuid: str, line: dict[str, tuple[int, int]] | None = None) -> dict[str, Any]:
        ticket = self._table.find(uuid)
        if ticket.state.ended:
            return ticket.view(None, None)
        position, steps = line.get(uuid, NOT_WAITING) if line else self._table.place(ticket)
        own = self._workers.get(ticket.worker or "")
        own = own if own and own.uuid == ticket.job.uuid else None
        return ticket.view(position, eta.eta_s(ticket.job, steps, own, self._statuses()))

    def _is_wanted(self, worker: str) -> bool:
        ticket = self._table.running.get(worker)
        if ticket is not None:
            return ticket.cancel and not ticket.told
        return bool(self._table.waiting) and self._is_free(worker)

    def _is_free(self, worker: str) -> bool:
        status = self._workers[worker]
        return status is not None and status.state == "idle" and worker not in self._table.running

    def _free(self) -> int:
        return sum(map(self._is_free, self._workers)) - len(self._table.waiting) - self._reserved

    def _statuses(self) -> list[WorkerStatus]:
        return [status for status in self._workers.values() if status is not None]
