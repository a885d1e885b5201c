"""The one job a worker holds: loading, idle or busy, with its step. Thread-safe; runs nothing.

The control thread offers, cancels and looks; the main thread takes, counts steps and releases.
"""

from __future__ import annotations

import enum
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from gpu_worker.contract.job import Job


class State(enum.StrEnum):
    """`idle` implies that the last result is committed."""

    LOADING = "loading"
    IDLE = "idle"
    BUSY = "busy"


@dataclass(frozen=True)
class Wish:
    """A model to load, None for that of SDE_MODEL; or, with `unload`, none."""

    model: str | None = None
    unload: bool = False


class ForbiddenTransition(RuntimeError):
    """A call that the state does not allow."""


@dataclass(frozen=True)
class SlotView:
    """What the slot looked like at one moment. `step_s` is seconds a step, measured.

    `started_time`, ISO 8601: since when it holds the job.
    `log` and `committed`: the newest segment, and how many bytes of it are on disk for good.
    """

    state: State = State.LOADING
    job: Job | None = None
    attempt: int = 0
    started_time: str | None = None
    step: int = 0
    steps: int = 0
    step_s: float | None = None
    log: str = ""
    committed: int = 0
    canceled: bool = False
    trouble: str | None = None
    load_error: str | None = None


class Slot:
    """Holds at most one job."""

    def __init__(self, position: tuple[str, int] = ("", 0)) -> None:
        self._changed = threading.Condition()
        self._view = SlotView(log=position[0], committed=position[1])
        self._unwanted: str | None = None
        self._wish: Wish | None = None

    def view(self) -> SlotView:
        """One consistent look."""
        with self._changed:
            return self._view

    def ready(self, load_error: str | None = None) -> None:
        """Loading is over, well or not: jobs may be offered."""
        with self._changed:
            self._require({State.LOADING}, State.IDLE)
            self._view = replace(self._view, state=State.IDLE, load_error=load_error)
            self._changed.notify_all()

    def offer(self, job: Job) -> bool:
        """Hold the job if the slot is idle; offering the held job again is accepted too."""
        with self._changed:
            if self._view.state is State.BUSY and self._view.job == job:
                return True
            if self._view.state is not State.IDLE:
                return False
            self._hold(job, attempt=1)
            return True

    def resume(self, job: Job, attempt: int) -> None:
        """Hold a job that an earlier process began, before any other can be offered."""
        with self._changed:
            self._require({State.LOADING}, State.BUSY)
            self._hold(job, attempt)

    def cancel(self, uuid: str) -> bool:
        """Ask for the end of the held job, if it is this one; the main thread ends it."""
        with self._changed:
            if self._view.job is None or self._view.job.uuid != uuid:
                return False
            self._view = replace(self._view, canceled=True)
            self._changed.notify_all()
            return True

    def seal(self, log: str) -> bool:
        """Ask for a new segment after `log`, if that is the newest; the main thread makes it."""
        with self._changed:
            if self._view.log != log:
                return False
            self._unwanted = log
            self._changed.notify_all()
            return True

    def wish(self, wish: Wish) -> bool:
        """Ask an idle worker for another model; the main thread loads it, and takes no job before
        that."""
        with self._changed:
            if self._view.state is not State.IDLE:
                return False
            self._wish = wish
            self._view = replace(self._view, state=State.LOADING)
            self._changed.notify_all()
            return True

    def wished(self) -> Wish | None:
        """What was asked for; it is the caller's to do, and ready() to say when it is done."""
        with self._changed:
            wish, self._wish = self._wish, None
            return wish

    def take(self, timeout_s: float) -> SlotView | None:
        """Wait for a held job; None when none came in time, or something else is wanted first."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._view.state is State.BUSY or self._wish is not None or self.wants_segment()
                ),
                timeout_s,
            )
            return self._view if self._view.state is State.BUSY else None

    def wants_segment(self) -> bool:
        """Whether a new segment has been asked for, and not been begun yet."""
        with self._changed:
            return self._unwanted is not None and self._unwanted == self._view.log

    def began_segment(self, position: tuple[str, int]) -> None:
        """The log goes on in a new segment."""
        with self._changed:
            self._unwanted = None
            self._view = replace(self._view, log=position[0], committed=position[1])

    def advance(self, step: int, steps: int, step_s: float | None) -> None:
        """The pipeline has done `step` of `steps`."""
        with self._changed:
            self._require({State.BUSY}, State.BUSY)
            self._view = replace(
                self._view, step=step, steps=steps, step_s=step_s or self._view.step_s
            )

    def troubled(self, sentence: str, timeout_s: float) -> None:
        """Say why the disk does not take what must be written, and wait before the next try."""
        with self._changed:
            self._require({State.BUSY}, State.BUSY)
            self._view = replace(self._view, trouble=sentence)
            self._changed.wait(timeout_s)

    def untroubled(self) -> None:
        """The disk takes it again."""
        with self._changed:
            self._view = replace(self._view, trouble=None)

    def reached(self) -> dict[str, int]:
        """How many steps of how many the held job has done, as its record says it."""
        with self._changed:
            return {"step": self._view.step, "steps": self._view.steps}

    def release(self, position: tuple[str, int]) -> None:
        """The job has its outcome on disk, at the end of the log's `position`."""
        with self._changed:
            self._require({State.BUSY}, State.IDLE)
            self._view = SlotView(
                State.IDLE, step_s=self._view.step_s, log=position[0], committed=position[1]
            )
            self._changed.notify_all()

    def _hold(self, job: Job, attempt: int) -> None:
        self._view = replace(
            self._view,
            state=State.BUSY,
            job=job,
            attempt=attempt,
            started_time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            canceled=False,
            trouble=None,
            step=0,
            steps=job.request.steps,
        )
        self._changed.notify_all()

    def _require(self, allowed: set[State], target: State) -> None:
        if self._view.state not in allowed:
            names = " or ".join(sorted(allowed))
            raise ForbiddenTransition(
                f"to become {target} the slot must be {names} but is {self._view.state}"
            )
