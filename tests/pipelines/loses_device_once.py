"""Loses its device in a job whose prompt says `lose`; the next process has it again."""

from __future__ import annotations

from gpu_worker.contract.job import Job
from gpu_worker.pipeline_api import DeviceLost, GeneratedImage, OnStep
from tests.pipelines.instant import Instant


class LosesDeviceOnce(Instant):
    """As after a CUDA error that the process cannot recover from."""

    def generate(self, job: Job, on_step: OnStep) -> list[GeneratedImage]:
        if "lose" in job.request.prompt:
            raise DeviceLost("an illegal memory access, on purpose")
        return super().generate(job, on_step)


def load(settings: object) -> LosesDeviceOnce:
    """The factory."""
    return LosesDeviceOnce()
