"""A job in the broker's table: its state and its times. Knows no lock and no queue."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gpu_worker.contract.job import Job, Outcome
from gpu_worker.contract.protocol import WorkerStatus


def iso_time(moment: datetime) -> str:
    """ISO 8601 with zone and milliseconds, as records have it."""
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
        """Whether it stays so."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(eq=False)
class JobEntry:
    """A job and `worker` who runs it; `cancel`: its end is wanted, `told`: its worker knows that;
    `dispatched`: the journal says so.

    Times are ISO 8601.
    """

    job: Job
    state: JobState = JobState.QUEUED
    worker: str | None = None
    cancel: bool = False
    told: bool = False
    dispatched: bool = False
    attempts: int = 0
    step: int = 0
    steps: int = 0
    errors: list[str] = field(default_factory=list)
    started_time: str | None = None
    ended_time: str | None = None

    def observe(self, status: WorkerStatus) -> None:
        """Its worker has spoken of it."""
        self.attempts, self.step, self.steps = status.attempt, status.step, status.steps
        self.errors = [status.trouble] if status.trouble else []
        # After a restart of the gateway only the worker knows it.
        self.started_time = self.started_time or status.started_time

    def end(self, record: dict[str, Any]) -> None:
        """It has its outcome. All that is told of it from now on is its record's, as it is after
        a restart, when nobody remembers more."""
        said = view_of_record(record)
        self.state, self.cancel = JobState(said["state"]), said["cancel_requested"]
        self.attempts, self.step, self.steps = said["attempts"], said["step"], said["steps"]
        self.started_time, self.ended_time = said["started_time"], said["ended_time"]
        self.errors = said["errors"]

    def view(self, position: int | None, eta_s: float | None) -> dict[str, Any]:
        """As GET /image/jobs/{uuid} shows it."""
        return {
            "uuid": self.job.uuid,
            "state": self.state.value,
            "position": position,
            "step": self.step,
            "steps": self.steps or self.job.request.steps,
            "eta_s": eta_s,
            "attempts": self.attempts,
            "cancel_requested": self.cancel,
            "created_time": self.job.created_time,
            "started_time": self.started_time,
            "ended_time": self.ended_time,
            "errors": list(self.errors),
        }


def view_of_record(record: dict[str, Any]) -> dict[str, Any]:
    """The same of a job that has ended, by its first record."""
    # Records of before there was `steps` say how many there are for one picture.
    steps = record.get("steps", record.get("num_inference_steps") or 0)
    return {
        "uuid": record["uuid"],
        "state": record["state"],
        "position": None,
        "step": steps if record["state"] == JobState.SUCCEEDED else record.get("step", 0),
        "steps": steps,
        "eta_s": None,
        "attempts": record.get("attempt", 0),
        "cancel_requested": record["state"] == JobState.CANCELED,
        "created_time": record["created_time"],
        "started_time": record.get("started_time"),
        "ended_time": record.get("ended_time"),
        "errors": record["errors"],
    }
