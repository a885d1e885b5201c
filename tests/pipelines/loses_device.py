"""Loses its device when a model command, or a job, is run."""

from __future__ import annotations

from gpu_worker.contract.job import Job
from gpu_worker.pipeline_api import DeviceLost, GeneratedImage, OnStep
from gpu_worker.settings import WorkerSettings
from tests.pipelines.describes import Describes


class LosesDevice(Describes):
    """As after a CUDA error that the process cannot recover from."""

    def generate(self, job: Job, on_step: OnStep) -> list[GeneratedImage]:
        raise DeviceLost("an illegal memory access, on purpose")

    def load(self, model: str | None) -> None:
        raise DeviceLost("an illegal memory access, on purpose")

    def unload(self) -> None:
        raise DeviceLost("an illegal memory access, on purpose")


def load(settings: WorkerSettings) -> LosesDevice:
    """The factory."""
    return LosesDevice(settings)
