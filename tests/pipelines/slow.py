"""Sleeps at each step, so that a test can act in the middle of a job; offers previews."""

from __future__ import annotations

import time

from PIL import Image

from gpu_worker.contract.job import Job
from gpu_worker.pipeline_api import Preview
from tests.pipelines.instant import Instant

STEP_S = 0.05


class Slow(Instant):
    """Takes STEP_S a step."""

    def before_step(self, step: int, job: Job) -> None:
        time.sleep(STEP_S)

    def preview(self) -> Preview | None:
        """A small grey one."""
        return Preview(Image.new("RGB", (32, 32), "grey"))


def load(settings: object) -> Slow:
    """The factory."""
    return Slow()
