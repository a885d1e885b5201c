"""Defines a job in the broker's table and the view of it that clients see."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from gpu_worker.contract.job import Job, Outcome
from gpu_worker.contract.protocol import SlotStatus


def iso_time(moment: datetime) -> str:
    """Return ISO 8601 with zone and milliseconds, as in records."""
    return moment.isoformat(timespec="milliseconds")


class JobState(enum.StrEnum):
    """A job's life: queued -> running -> succeeded | failed | canceled; queued -> canceled."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = Outcome.SUCCEEDED.value
    FAILED = Outcome.FAILED.value
    CANCELED = Outcome.CANCELED.value

    @property
    def ended(self) -> bool:
        """Return whether the state is final."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True)
class JobView:
    """A job as GET /image/jobs/{uuid} shows it: the members of the JSON, in their order.

    `position` counts the jobs before it in the queue, None when it does not wait. `eta_s` is the
    estimated seconds until its end. Times are ISO 8601. `owner` names the key that sent the job.
    `batch_id` and `client_name` are its labels.
    """

    uuid: str
    state: JobState
    position: int | None
    step: int
    steps: int
    eta_s: float | None
    attempts: int
    cancel_requested: bool
    created_time: str
    started_time: str | None
    ended_time: str | None
    errors: list[str]
    owner: str | None = None
    batch_id: str | None = None
    client_name: str | None = None

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> JobView:
        """Return the view of an ended job from its first result record."""
        # Records older than the key `steps` have the steps of one image only.
        steps = record.get("steps", record.get("num_inference_steps") or 0)
        state = JobState(record["state"])
        return cls(
            uuid=record["uuid"],
            state=state,
            position=None,
            step=steps if state is JobState.SUCCEEDED else record.get("step", 0),
            steps=steps,
            eta_s=None,
            attempts=record.get("attempt", 0),
            cancel_requested=state is JobState.CANCELED,
            created_time=record["created_time"],
            started_time=record.get("started_time"),
            ended_time=record.get("ended_time"),
            errors=record["errors"],
            owner=record.get("owner"),
            batch_id=record.get("batch_id"),
            client_name=record.get("client_name"),
        )

    def json(self) -> dict[str, Any]:
        """Return the members of the JSON object."""
        return vars(self) | {"state": self.state.value}

    def differs(self, other: JobView) -> bool:
        """Return whether a client that waits should see the change."""
        watched = ("state", "position", "step", "attempts", "cancel_requested")
        return any(getattr(self, name) != getattr(other, name) for name in watched)


NATIVE, CLIENT, PAGE = "native", "cli", "page"
DOORS = (NATIVE, CLIENT, PAGE, "openai", "automatic1111")
"""Every door of the service. A resource of another dialect has its own in an attribute `door`."""


@dataclass(frozen=True)
class Caller:
    """Where a request came from: the door, the id of the HTTP request, and the name of its key.

    The door of a job of the previous run is unknown.
    """

    door: str | None = None
    request_id: str | None = None
    owner: str | None = None


UNKNOWN_CALLER = Caller()


class JobObserver(Protocol):
    """Learns of the life of jobs. The broker calls it without its lock."""

    def accepted(self, entry: JobEntry) -> None:
        """A job has been accepted."""

    def dispatched(self, entry: JobEntry) -> None:
        """A worker is to run the job."""

    def ended(self, entry: JobEntry, record: dict[str, Any], step_s: float | None) -> None:
        """The job has its outcome, with the mean seconds of its steps if they are known."""


@dataclass(eq=False)
class JobEntry:
    """A job and the worker that runs it.

    `cancel`: a client canceled it; `cancel_sent`: its worker knows that. `dispatched`: the journal
    has its worker. `ended`: its view once it has its outcome. `turn`: its place among all keys'
    jobs, once it waits. `queued_s`: how long it has waited. `arrival` counts the jobs that came
    into the table.
    """

    job: Job
    caller: Caller = UNKNOWN_CALLER
    state: JobState = JobState.QUEUED
    worker: str | None = None
    cancel: bool = False
    cancel_sent: bool = False
    dispatched: bool = False
    attempts: int = 0
    step: int = 0
    steps: int = 0
    errors: list[str] = field(default_factory=list)
    started_time: str | None = None
    ended: JobView | None = None
    turn: int | None = None
    arrival: int = 0
    accepted_at: float = field(default_factory=time.monotonic)
    queued_s: float | None = None

    def start(self, now: datetime) -> None:
        """Note that a worker is to run it from now on. The time in the queue ends."""
        self.started_time = iso_time(now)
        self.queued_s = time.monotonic() - self.accepted_at

    def observe(self, slot: SlotStatus, trouble: str | None) -> None:
        """Store what its worker reports of it.

        Args:
            trouble: why the disk does not take its outcome yet, or None.
        """
        self.attempts, self.step, self.steps = slot.attempt, slot.step, slot.steps
        self.errors = [trouble] if trouble else []
        # After a restart of the gateway only the worker knows it.
        self.started_time = self.started_time or slot.started_time

    def end(self, record: dict[str, Any]) -> None:
        """Store its outcome. Its view is that of its record from now on, as after a restart."""
        self.ended = JobView.from_record(record)
        self.state = self.ended.state

    def view(self, position: int | None, eta_s: float | None) -> JobView:
        """Return the view of it now.

        Args:
            position: how many jobs wait before it; None when it does not wait.
            eta_s: estimated seconds until its end.
        """
        return self.ended or JobView(
            uuid=self.job.uuid,
            state=self.state,
            position=position,
            step=self.step,
            steps=self.steps or self.job.request.steps,
            eta_s=eta_s,
            attempts=self.attempts,
            cancel_requested=self.cancel,
            created_time=self.job.created_time,
            started_time=self.started_time,
            ended_time=None,
            errors=list(self.errors),
            owner=self.job.owner,
            batch_id=self.job.batch_id,
            client_name=self.job.client_name,
        )
