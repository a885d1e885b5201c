"""The measured time of a step, in the real runner with a clock that the pipeline moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gpu_worker.contract.job import Job
from gpu_worker.control.runner import Runner
from gpu_worker.control.slots import Slots
from gpu_worker.control.watchdog import StepWatchdog
from gpu_worker.pipeline_api import GeneratedImage, OnStep
from gpu_worker.store.in_flight import InFlight, InFlightJob
from gpu_worker.store.result_log import ResultLog
from tests.pipelines.instant import Instant
from tests.support.journal_jobs import job

LOADING_S, STEP_S = 90.0, 2.0


class Clocked(Instant):
    """Its clock is at the end of each step; the first step begins after the loading."""

    def __init__(self, first_step: int, notes: Callable[[], None]) -> None:
        self.now_s = 0.0
        self._first_step, self._notes = first_step, notes

    def generate(self, job: Job, on_step: OnStep) -> list[GeneratedImage]:
        self.now_s += LOADING_S
        steps = job.request.steps
        for step in range(self._first_step, steps + 1):
            self.now_s += STEP_S
            on_step(step, steps)
            self._notes()
        return super().generate(job, lambda *_: None)


def measured(folder: Path, first_step: int = 1, steps: int = 4) -> list[float | None]:
    """The status's time of a step after each step of one job."""
    results = ResultLog(folder, "gpu-0", 1 << 20)
    results.open()
    asked = job(1)
    request = asked.request.model_copy(update={"num_inference_steps": steps})
    notes = InFlight(folder, "gpu-0")
    notes.write(InFlightJob(attempt=1, job=asked.model_copy(update={"request": request})))
    slots = Slots(results.position)
    found: list[float | None] = []
    pipeline = Clocked(first_step, lambda: found.append(slots.view().step_s))

    def ended() -> bool:
        return bool(found) and not slots.view().held

    runner = Runner(
        slots,
        results,
        notes,
        pipeline,
        watchdog=StepWatchdog(600.0),
        max_attempts=2,
        stopping=ended,
        clock=lambda: pipeline.now_s,
    )
    runner.run()
    return found


def test_the_loading_before_the_first_step_is_not_part_of_a_steps_time(tmp_path: Path) -> None:
    assert measured(tmp_path) == [None, STEP_S, STEP_S, STEP_S]


@pytest.mark.parametrize("first_step", [2, 3])
def test_a_job_that_begins_later_is_measured_from_there(tmp_path: Path, first_step: int) -> None:
    assert measured(tmp_path, first_step) == [None] + [STEP_S] * (4 - first_step)


def test_one_step_measures_nothing(tmp_path: Path) -> None:
    assert measured(tmp_path, steps=1) == [None]
