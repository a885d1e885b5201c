"""Holds the jobs of a worker and its state: loading, idle or busy. It is thread-safe.

The control thread offers, cancels and views jobs. The main thread takes them, counts their steps
and releases them.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from gpu_worker.contract.job import Job
from gpu_worker.contract.protocol import ModelCommand, WorkerState


class ForbiddenTransition(RuntimeError):
    """The state does not allow the call."""


@dataclass(frozen=True)
class HeldJob:
    """A job in a slot. `started_time` is the time since which it is held, in ISO 8601.

    `stepped_at` is when its present step began, in seconds of time.monotonic().
    """

    job: Job
    attempt: int
    started_time: str
    step: int = 0
    steps: int = 0
    stepped_at: float = field(default_factory=time.monotonic)
    canceled: bool = False


@dataclass(frozen=True)
class SlotsView:
    """The state of the slots at one moment.

    `held` are the jobs in the order of their offers. `step_s` is the measured seconds per step.
    `log` is the name of the newest segment, and `committed` the number of its bytes on the disk.
    `trouble` is the error of the disk while it refuses a write. `gpu_memory` is what is used of the
    GPU's memory, and its size, in bytes.
    """

    state: WorkerState = WorkerState.LOADING
    held: tuple[HeldJob, ...] = ()
    step_s: float | None = None
    log: str = ""
    committed: int = 0
    trouble: str | None = None
    load_error: str | None = None
    gpu_memory: tuple[int, int] | None = None

    def find(self, uuid: str) -> HeldJob | None:
        """Return the held job with this uuid, or None."""
        return next((each for each in self.held if each.job.uuid == uuid), None)


class Slots:
    """At most `capacity` jobs. All jobs of an earlier process are held, however many they are."""

    def __init__(self, position: tuple[str, int] = ("", 0), capacity: int = 1) -> None:
        self.capacity = capacity
        self._changed = threading.Condition()
        self._view = SlotsView(log=position[0], committed=position[1])
        self._rotate_after: str | None = None
        self._command: ModelCommand | None = None

    def view(self) -> SlotsView:
        """Return the state of one moment."""
        with self._changed:
            return self._view

    def ready(self, load_error: str | None = None) -> None:
        """End the loading, successful or not. Jobs can be offered from now on."""
        with self._changed:
            self._require({WorkerState.LOADING}, WorkerState.IDLE)
            self._set(state=WorkerState.IDLE, load_error=load_error)

    def fail_loading(self, load_error: str | None) -> None:
        """Note why the first model could not be loaded. The state stays loading."""
        with self._changed:
            self._set(load_error=load_error)

    def offer(self, job: Job) -> bool:
        """Hold the job if a slot is free. The same job can be offered again."""
        with self._changed:
            held = self._view.find(job.uuid)
            if held is not None:
                return held.job == job
            is_free = len(self._view.held) < self.capacity
            if self._view.state is WorkerState.LOADING or not is_free:
                return False
            self._hold(job, attempt=1)
            return True

    def resume(self, job: Job, attempt: int) -> None:
        """Hold a job of an earlier process, before other jobs can be offered."""
        with self._changed:
            self._require({WorkerState.LOADING, WorkerState.BUSY}, WorkerState.BUSY)
            self._hold(job, attempt)

    def cancel(self, uuid: str) -> bool:
        """Request the end of a held job, which the main thread then ends."""
        with self._changed:
            if self._view.find(uuid) is None:
                return False
            self._update(uuid, canceled=True)
            return True

    def request_rotation(self, log: str) -> bool:
        """Request a new segment if `log` is the newest one. The main thread starts it."""
        with self._changed:
            if self._view.log != log:
                return False
            self._rotate_after = log
            self._changed.notify_all()
            return True

    def request_command(self, command: ModelCommand) -> bool:
        """Request another model from an idle worker, which accepts no job until then."""
        with self._changed:
            if self._view.state is not WorkerState.IDLE:
                return False
            self._command = command
            self._set(state=WorkerState.LOADING)
            return True

    def take_command(self) -> ModelCommand | None:
        """Return the requested command. The caller runs it and then calls ready()."""
        with self._changed:
            command, self._command = self._command, None
            return command

    def take(self, timeout_s: float) -> HeldJob | None:
        """Wait for a held job; return None after the timeout, or if something else comes first."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._view.held or self._command is not None or self.wants_rotation(),
                timeout_s,
            )
            return self._view.held[0] if self._view.held else None

    def wants_rotation(self) -> bool:
        """Return whether a new segment has been requested and not started."""
        with self._changed:
            return self._rotate_after is not None and self._rotate_after == self._view.log

    def rotated(self, position: tuple[str, int]) -> None:
        """Note that the log continues in a new segment, or that this has failed."""
        with self._changed:
            self._rotate_after = None
            self._set(log=position[0], committed=position[1])

    def advance(self, uuid: str, step: int, steps: int, step_s: float | None) -> None:
        """Note that the pipeline has done `step` of the `steps` of a job."""
        with self._changed:
            self._require({WorkerState.BUSY}, WorkerState.BUSY)
            self._update(uuid, step=step, steps=steps, stepped_at=time.monotonic())
            self._view = replace(self._view, step_s=step_s or self._view.step_s)

    def set_gpu_memory(self, gpu_memory: tuple[int, int] | None) -> None:
        """Note what is used of the GPU's memory, and its size."""
        with self._changed:
            self._view = replace(self._view, gpu_memory=gpu_memory)

    def set_storage_error(self, message: str, timeout_s: float) -> None:
        """Note why the disk refuses a write, and wait before the next attempt."""
        with self._changed:
            self._require({WorkerState.BUSY}, WorkerState.BUSY)
            self._view = replace(self._view, trouble=message)
            self._changed.wait(timeout_s)

    def clear_storage_error(self) -> None:
        """Note that the disk accepts writes again."""
        with self._changed:
            self._view = replace(self._view, trouble=None)

    def is_canceled(self, uuid: str) -> bool:
        """Return whether the end of a held job has been requested."""
        held = self.view().find(uuid)
        return held is not None and held.canceled

    def progress(self, uuid: str) -> dict[str, int]:
        """Return the steps of a held job as the keys of its record."""
        held = self.view().find(uuid)
        return {} if held is None else {"step": held.step, "steps": held.steps}

    def release(self, uuid: str, position: tuple[str, int]) -> None:
        """Release a job whose outcome is on the disk, at the end of the log's `position`."""
        with self._changed:
            self._require({WorkerState.BUSY}, WorkerState.IDLE)
            held = tuple(each for each in self._view.held if each.job.uuid != uuid)
            self._set(
                state=WorkerState.BUSY if held else WorkerState.IDLE,
                held=held,
                log=position[0],
                committed=position[1],
                trouble=None,
                load_error=None,
            )

    # ---- under the lock -----------------------------------------------------------------------

    def _hold(self, job: Job, attempt: int) -> None:
        started = datetime.now(UTC).isoformat(timespec="milliseconds")
        held = HeldJob(job, attempt, started, steps=job.request.steps)
        self._set(state=WorkerState.BUSY, held=(*self._view.held, held), trouble=None)

    def _update(self, uuid: str, **changes: object) -> None:
        held = tuple(
            replace(each, **changes) if each.job.uuid == uuid else each  # type: ignore[arg-type]
            for each in self._view.held
        )
        self._set(held=held)

    def _set(self, **changes: object) -> None:
        self._view = replace(self._view, **changes)  # type: ignore[arg-type]
        self._changed.notify_all()

    def _require(self, allowed: set[WorkerState], target: WorkerState) -> None:
        if self._view.state not in allowed:
            names = " or ".join(sorted(allowed))
            raise ForbiddenTransition(
                f"to become {target} the worker must be {names} but is {self._view.state}"
            )
