"""Raises in the middle of a job whose prompt says so; the process can go on."""

from __future__ import annotations

from gpu_worker.contract.job import Job
from gpu_worker.pipeline_api import OutOfMemory
from tests.pipelines.instant import Instant


class Raises(Instant):
    """`raise` in the prompt raises ValueError, `memory` raises OutOfMemory."""

    def before_step(self, step: int, job: Job) -> None:
        if "raise" in job.request.prompt:
            raise ValueError("a fault on purpose")
        if "memory" in job.request.prompt:
            raise OutOfMemory("out of memory with MACHINE_SIZE=big: try MACHINE_SIZE=medium")


def load(settings: object) -> Raises:
    """The factory."""
    return Raises()
