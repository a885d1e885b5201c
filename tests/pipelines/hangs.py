"""Hangs inside C code with the GIL held, in a job whose prompt says `hang`."""

from __future__ import annotations

import ctypes

from gpu_worker.contract.job import Job
from tests.pipelines.instant import Instant


class Hangs(Instant):
    """PyDLL does not release the GIL around the call, so no Python thread runs meanwhile."""

    def before_step(self, step: int, job: Job) -> None:
        if "hang" in job.request.prompt:
            ctypes.PyDLL(None).sleep(600)


def load(settings: object) -> Hangs:
    """The factory."""
    return Hangs()
