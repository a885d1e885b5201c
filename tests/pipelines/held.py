"""Stays at the first step of a job until the test lets it go on, however long that takes.

It goes on when the file `released`, or `released.UUID` for one job alone, is in SDE_DATA_DIR. A job
can be canceled and a worker stopped before that, as at any step.
"""

from __future__ import annotations

import time

from gpu_worker.contract.job import Job
from gpu_worker.pipeline_api import GeneratedImage, OnStep
from gpu_worker.settings import WorkerSettings
from tests.pipelines.slow import Slow

LOOK_S = 0.01


class Held(Slow):
    """The steps after the first take as long as those of `slow`."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._folder = settings.data_dir

    def generate(self, job: Job, on_step: OnStep) -> list[GeneratedImage]:
        """The first step again and again; then all of them."""
        names = ("released", f"released.{job.uuid}")
        while not any((self._folder / name).exists() for name in names):
            on_step(1, job.request.steps, self.preview)
            time.sleep(LOOK_S)
        return super().generate(job, on_step)


def load(settings: WorkerSettings) -> Held:
    """The factory."""
    return Held(settings)
