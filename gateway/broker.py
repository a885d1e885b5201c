"""The job table: a bounded queue, states, and who is next. Knows no HTTP, no ZeroMQ and no disk.

Thread-safe: HTTP threads accept and look, one dispatcher thread a worker observes, takes and ends.
"""

from __future__ import annotations

import enum
import math
import secrets
import threading
import uuid as uuids
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gpu_worker.generation import GenerationRequest, Job
from gpu_worker.protocol import WorkerStatus

KEPT_ENDED = 10_000
"""Ended jobs that stay in the table; older ones are still answered from the result log."""

SEED_LIMIT = 2**32
"""Seeds that we draw stay within 32 bits, as A1111's do, so that other tools can reuse them."""

UNMEASURED_STEP_S = 0.2


class JobState(enum.StrEnum):
    """A job's life: queued -> running -> succeeded | failed."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class QueueFull(RuntimeError):
    """No worker is idle and no place is left to wait."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("the service is not available for a generation right now")
        self.retry_after_s = retry_after_s


class WorkerUnavailable(RuntimeError):
    """No worker can be reached."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("no GPU worker can be reached; it is restarted when it has died")
        self.retry_after_s = retry_after_s


class UnknownJob(KeyError):
    """No job of this uuid is in the table."""


@dataclass
class Ticket:
    """A job in the table; `worker` is who runs it."""

    job: Job
    state: JobState = JobState.QUEUED
    worker: str | None = None
    attempts: int = 0
    errors: list[str] = field(default_factory=list)


class Broker:
    """One table for all workers.

    Args:
        workers: names, as the dispatchers use them.
        queue_size: jobs that may wait beyond those that run; 0 is the seed's one at a time.
    """

    def __init__(
        self,
        workers: list[str],
        queue_size: int,
        *,
        new_uuid: Callable[[], str] = lambda: str(uuids.uuid4()),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._workers: dict[str, WorkerStatus | None] = dict.fromkeys(workers)
        self._queue_size = queue_size
        self._new_uuid, self._now = new_uuid, now
        self._changed = threading.Condition()
        self._queue: deque[Ticket] = deque()
        self._running: dict[str, Ticket] = {}
        self._table: OrderedDict[str, Ticket] = OrderedDict()

    # ---- HTTP threads -------------------------------------------------------------------------

    def available(self) -> bool:
        """Whether a job accepted now would start at once."""
        with self._changed:
            return self._free() > 0

    def accept(self, request: GenerationRequest) -> Job:
        """Put a request into the table; its seed is drawn here when it has none.

        Raises:
            WorkerUnavailable: no worker can be reached.
            QueueFull: all are busy or loading, and the queue is full.
        """
        with self._changed:
            if not any(self._workers.values()):
                raise WorkerUnavailable(retry_after_s=5)
            if self._free() <= 0 and len(self._queue) >= self._queue_size:
                raise QueueFull(self._retry_after_s())
            if request.seed is None:
                request = request.model_copy(update={"seed": secrets.randbelow(SEED_LIMIT)})
            job = Job(
                uuid=self._new_uuid(),
                created_time=self._now().isoformat(timespec="milliseconds"),
                request=request,
            )
            ticket = Ticket(job)
            self._queue.append(ticket)
            self._table[job.uuid] = ticket
            self._changed.notify_all()
            return job

    def view(self, uuid: str) -> dict[str, Any]:
        """The job as GET /image/jobs/{uuid} shows it, but for times and units in its names.

        Raises:
            UnknownJob: it is not in the table.
        """
        with self._changed:
            ticket = self._table.get(uuid)
            if ticket is None:
                raise UnknownJob(uuid)
            status = self._status_of(ticket)
            steps = ticket.job.request.num_inference_steps
            ended = ticket.state is JobState.SUCCEEDED
            return {
                "uuid": uuid,
                "state": ticket.state.value,
                "position": self._queue.index(ticket) if ticket in self._queue else None,
                "step": status.step if status else (steps if ended else 0),
                "steps": (status.steps or steps) if status else steps,
                "eta_s": self._eta_s(ticket),
                "attempts": status.attempt if status else ticket.attempts,
                "created_time": ticket.job.created_time,
                "errors": list(ticket.errors),
            }

    def workers(self) -> dict[str, WorkerStatus | None]:
        """The last status of each worker; None: it cannot be reached."""
        with self._changed:
            return dict(self._workers)

    # ---- dispatcher threads -------------------------------------------------------------------

    def observe(self, worker: str, status: WorkerStatus | None) -> None:
        """Remember what a worker said, or that it said nothing."""
        with self._changed:
            self._workers[worker] = status
            ticket = self._running.get(worker)
            if status and ticket and status.uuid == ticket.job.uuid:
                ticket.attempts = status.attempt
            self._changed.notify_all()

    def running(self, worker: str) -> Job | None:
        """The job that is this worker's to finish."""
        with self._changed:
            ticket = self._running.get(worker)
            return ticket.job if ticket else None

    def take(self, worker: str) -> Job | None:
        """Give the next waiting job to an idle worker; None when there is none or it is busy."""
        with self._changed:
            if not self._queue or not self._is_free(worker):
                return None
            ticket = self._queue.popleft()
            ticket.state, ticket.worker = JobState.RUNNING, worker
            self._running[worker] = ticket
            self._changed.notify_all()
            return ticket.job

    def end(self, uuid: str, errors: list[str]) -> None:
        """The job has its outcome; one that is not ours is a former gateway's: passed over."""
        with self._changed:
            ticket = self._table.get(uuid)
            if ticket is None or ticket.state not in (JobState.QUEUED, JobState.RUNNING):
                return
            ticket.state = JobState.FAILED if errors else JobState.SUCCEEDED
            ticket.errors = errors
            if ticket in self._queue:
                self._queue.remove(ticket)
            if ticket.worker is not None:
                self._running.pop(ticket.worker, None)
            self._forget_old()
            self._changed.notify_all()

    def wait_for_work(self, worker: str, timeout_s: float) -> None:
        """Sleep until this worker could take a job, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._queue) and self._is_free(worker), timeout_s)

    # ---- under the lock -----------------------------------------------------------------------

    def _is_free(self, worker: str) -> bool:
        status = self._workers[worker]
        return status is not None and status.state == "idle" and worker not in self._running

    def _free(self) -> int:
        return sum(map(self._is_free, self._workers)) - len(self._queue)

    def _status_of(self, ticket: Ticket) -> WorkerStatus | None:
        status = self._workers.get(ticket.worker) if ticket.worker else None
        return status if status and status.uuid == ticket.job.uuid else None

    def _step_s(self) -> float:
        measured = [s.step_s for s in self._workers.values() if s and s.step_s]
        return sum(measured) / len(measured) if measured else UNMEASURED_STEP_S

    def _left_s(self, status: WorkerStatus) -> float:
        return (status.steps - status.step) * (status.step_s or self._step_s())

    def _retry_after_s(self) -> int:
        """Whole seconds until a place is free: the soonest worker's steps (RFC 9110, 10.2.3)."""
        left = [self._left_s(s) for s in self._workers.values() if s and s.state == "busy"]
        return max(1, math.ceil(min(left, default=1.0)))

    def _eta_s(self, ticket: Ticket) -> float | None:
        if ticket.state not in (JobState.QUEUED, JobState.RUNNING):
            return None
        own = ticket.job.request.num_inference_steps * self._step_s()
        status = self._status_of(ticket)
        if status:
            return round(self._left_s(status), 3)
        if ticket not in self._queue:
            return round(own, 3)
        ahead = list(self._queue)[: self._queue.index(ticket)]
        before = [self._left_s(s) for s in self._workers.values() if s and s.state == "busy"]
        waiting = sum(t.job.request.num_inference_steps for t in ahead) * self._step_s()
        return round(min(before, default=0.0) + waiting / len(self._workers) + own, 3)

    def _forget_old(self) -> None:
        while len(self._table) > KEPT_ENDED:
            oldest = next(iter(self._table.values()))
            if oldest.state in (JobState.QUEUED, JobState.RUNNING):
                return
            self._table.popitem(last=False)
