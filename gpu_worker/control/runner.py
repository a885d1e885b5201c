"""Runs the main thread's loop: take, generate, append, release. It knows no socket and no torch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from PIL import Image

from gpu_worker.contract.job import Job, Outcome
from gpu_worker.contract.protocol import ModelCommand
from gpu_worker.contract.validation_errors import Refusal, error_text
from gpu_worker.control.slots import HeldJob, Slots
from gpu_worker.control.watchdog import StepWatchdog
from gpu_worker.output.partial_images import PartialImages
from gpu_worker.output.preview_file import PreviewFile
from gpu_worker.output.result_records import error_message, outcome_records
from gpu_worker.pipeline_api import DeviceLost, GeneratedImage, OutOfMemory, Pipeline, Preview
from gpu_worker.store.in_flight import InFlight, InFlightJob
from gpu_worker.store.result_log import RecordTooLong, ResultLog

log = logging.getLogger(__name__)

MEMORY_S = 1.0
"""Seconds between two looks at the GPU's memory."""

RETRY_S = 0.5
"""Seconds between two tries to write what the disk refused."""


class _JobInterrupted(BaseException):
    """Raised between two steps. It is no Exception, so that pipelines do not catch it."""


class Stopped(_JobInterrupted):
    """The worker is to stop."""


class Canceled(_JobInterrupted):
    """A client canceled the job."""


@dataclass
class _StepPace:
    """The pace of a job's steps.

    The time of the first step is not part of it, because loading and text encoding precede it.
    """

    _first_step: int = 0
    _first_at: float = 0.0

    def mean_s(self, step: int, now: float) -> float | None:
        """Note that a step has ended; return the mean seconds of a step, None after the first."""
        if self._first_step == 0:
            self._first_step, self._first_at = step, now
        steps = step - self._first_step
        return (now - self._first_at) / steps if steps > 0 else None


class Runner:
    """Runs the held jobs one after another until the worker is to stop."""

    def __init__(
        self,
        slots: Slots,
        results: ResultLog,
        in_flight: InFlight,
        pipeline: Pipeline,
        *,
        watchdog: StepWatchdog,
        max_attempts: int,
        stopping: Callable[[], bool],
        preview: PreviewFile | None = None,
        partial_images: PartialImages | None = None,
        unload_after_s: float = 0.0,
        png_texts: bool = True,
        served: Callable[[], object] = lambda: None,
        last_exit: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = slots
        self._results = results
        self._in_flight = in_flight
        self._pipeline = pipeline
        self._watchdog = watchdog
        self._max_attempts = max_attempts
        self._stopping = stopping
        self._preview = preview
        self._partial_images = partial_images
        self._unload_after_s = unload_after_s
        self._png_texts = png_texts
        self._served = served
        self._last_exit = last_exit
        self._clock = clock
        self._idle_since = clock()
        self._memory_at = -math.inf
        self._stale_notes: set[str] = set()

    def run(self) -> None:
        """Finish the jobs of an earlier process, then serve until the worker is to stop.

        Raises:
            DeviceLost: in a command, or after a job's outcome is on disk.
        """
        try:
            if not self._recover():
                self._slots.ready()
            while not self._stopping():
                held = self._slots.take(timeout_s=0.2)
                if held is not None:
                    self._pipeline.refresh()
                    self._run(held)
                elif command := self._slots.take_command():
                    self._run_command(command)
                elif self._slots.wants_rotation():
                    self._rotate()
                elif 0 < self._unload_after_s < self._clock() - self._idle_since:
                    self._slots.request_command(ModelCommand(unload=True))
                else:
                    self._pipeline.refresh()
                    self._look_at_memory(self._clock())
        except Stopped:
            return

    def _recover(self) -> bool:
        """Resume the jobs of an earlier process; return whether there were any."""
        notes = self._in_flight.read()
        ended = [note for note in notes if self._results.ends_with(note.job.uuid)]
        for note in ended:
            self._remove_note(note.job)
        unfinished = [note for note in notes if note not in ended]
        for note in unfinished:
            self._slots.resume(note.job, note.attempt + 1)
        for note in unfinished:
            if note.attempt >= self._max_attempts:
                cause = "" if self._last_exit is None else f" ({error_text(self._last_exit)})"
                times = "once" if note.attempt == 1 else f"{note.attempt} times"
                message = (
                    f"the worker died {times} while it ran this job{cause}; "
                    "it is not run again (its log says more)"
                )
                metadata = {"attempt": note.attempt}
                self._commit(note.job, Outcome.FAILED, [message], [], metadata)
        return bool(unfinished)

    def _run(self, held: HeldJob) -> None:
        """Run a job to its outcome. Raises Stopped, or DeviceLost after the outcome is on disk."""
        job, attempt, start = held.job, held.attempt, self._clock()
        self._write_with_retry(lambda: self._write_note(InFlightJob(attempt=attempt, job=job)))
        device_error: DeviceLost | None = None
        outcome, errors = Outcome.FAILED, [""]
        images: list[GeneratedImage] = []
        try:
            images = self._generate(job)
            outcome, errors = Outcome.SUCCEEDED, []
        except Stopped:
            self._undo_attempt(job, attempt)
            raise
        except Canceled:
            outcome, errors = Outcome.CANCELED, ["canceled while it ran"]
        except DeviceLost as error:
            device_error, errors = error, [f"the device was lost: {error}"]
        except Exception as error:
            if not isinstance(error, (OutOfMemory, Refusal)):
                log.exception("job %s failed", job.uuid)
            errors = [error_message(error)]
        metadata = {
            "attempt": attempt,
            "started_time": held.started_time,
            "seconds": round(self._clock() - start, 3),
        }
        try:
            self._commit(job, outcome, errors, images, metadata)
        except Stopped:
            self._undo_attempt(job, attempt)
            raise
        if device_error is not None:
            raise device_error

    def _undo_attempt(self, job: Job, attempt: int) -> None:
        """Do not count the attempt, because a clean stop is not the job's fault."""
        try:
            self._in_flight.write(InFlightJob(attempt=attempt - 1, job=job))
        except OSError as error:
            log.warning("the stop counts as an attempt of the job %s: %s", job.uuid, error)

    def _generate(self, job: Job) -> list[GeneratedImage]:
        pace = _StepPace()
        self._watchdog.arm(self._clock())

        def on_step(
            step: int,
            steps: int,
            preview: Callable[[], Preview | None] | None = None,
            partial: Callable[[], Image.Image] | None = None,
        ) -> None:
            now = self._clock()
            self._slots.advance(job.uuid, step, steps, pace.mean_s(step, now))
            if self._preview is not None and preview is not None:
                self._preview.offer(job.uuid, preview)
            if self._partial_images is not None and partial is not None:
                self._partial_images.offer(job, step, steps, partial)
            self._watchdog.move(now)
            self._look_at_memory(now)
            if self._stopping():
                raise Stopped
            if self._slots.is_canceled(job.uuid):
                raise Canceled

        try:
            if self._slots.is_canceled(job.uuid):
                raise Canceled
            return self._pipeline.generate(job, on_step)
        finally:
            self._watchdog.cancel()
            if self._preview is not None:
                self._preview.remove()

    def _commit(
        self,
        job: Job,
        outcome: Outcome,
        errors: list[str],
        images: list[GeneratedImage],
        metadata: dict[str, Any],
    ) -> None:
        ended = datetime.now(UTC).isoformat(timespec="milliseconds")
        metadata = {
            **self._pipeline.request_metadata(job.request),
            **metadata,
            **self._slots.progress(job.uuid),
            "ended_time": ended,
        }
        try:
            records = outcome_records(job, outcome, errors, images, metadata, texts=self._png_texts)
            self._write_with_retry(lambda: self._results.append_all(records))
        except (MemoryError, RecordTooLong) as error:
            # An image in a record is several times as large.
            log.error("job %s: %s", job.uuid, error_message(error))
            records = outcome_records(job, Outcome.FAILED, [error_message(error)], [], metadata)
            self._write_with_retry(lambda: self._results.append_all(records))
        self._remove_note(job)
        self._slots.release(job.uuid, self._results.position)
        self._served()
        self._idle_since = self._clock()

    def _write_note(self, note: InFlightJob) -> None:
        """Write the note of a job that begins. Raises OSError.

        The notes of ended jobs that could not be removed are removed first. Once the log ends with
        another job, nothing else shows that their jobs have an outcome.
        """
        self._in_flight.clear(self._stale_notes)
        self._stale_notes.clear()
        self._in_flight.write(note)

    def _remove_note(self, job: Job) -> None:
        """Remove the note of an ended job. One that stays does no harm until the next job."""
        try:
            self._in_flight.remove(job.uuid)
        except OSError as error:
            self._stale_notes.add(job.uuid)
            log.warning("the note of the job %s cannot be removed: %s", job.uuid, error)

    def _write_with_retry(self, write: Callable[[], None]) -> None:
        """Write, and try again while the disk refuses it, so that no result is lost.

        Raises:
            Stopped: the process is to stop; the next one runs the job again.
        """
        while True:
            try:
                write()
            except OSError as error:
                reason = f"the disk refuses the result: {error.strerror}"
                log.error("%s; the write will be retried", reason)
                self._slots.set_storage_error(reason, RETRY_S)
            else:
                self._slots.clear_storage_error()
                return
            if self._stopping():
                raise Stopped

    def _run_command(self, command: ModelCommand) -> None:
        """Load or unload a model. A load error is reported, and the worker goes on.

        Raises:
            DeviceLost: the process must be replaced.
        """
        error: str | None = None
        self._watchdog.arm(self._clock())
        try:
            if command.unload:
                self._pipeline.unload()
            else:
                self._pipeline.load(command.model)
        except DeviceLost:
            raise
        except Exception as refusal:
            log.exception("the command %s failed", command)
            error = error_text(f"{command.model}: {refusal}")
        finally:
            self._watchdog.cancel()
        self._idle_since = self._clock() if not command.unload else math.inf
        self._slots.ready(error)

    def _look_at_memory(self, now: float) -> None:
        if now - self._memory_at >= MEMORY_S:
            self._memory_at = now
            self._slots.set_gpu_memory(self._pipeline.gpu_memory())

    def _rotate(self) -> None:
        try:
            # When the old segment is merged, the end of the log no longer shows that the last job
            # has its outcome. So its note is removed first.
            self._in_flight.clear()
            self._results.rotate()
        except OSError as error:
            log.warning("a new segment could not be created: %s", error)
        self._slots.rotated(self._results.position)
