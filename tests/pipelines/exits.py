"""Leaves the process in the middle of a job whose prompt says `poison`."""

from __future__ import annotations

import os

from gpu_worker.contract.job import Job
from tests.pipelines.instant import Instant


class Exits(Instant):
    """Ends with status 3, as a library that calls exit() would."""

    def before_step(self, step: int, job: Job) -> None:
        if "poison" in job.request.prompt:
            os._exit(3)


def load(settings: object) -> Exits:
    """The factory."""
    return Exits()
