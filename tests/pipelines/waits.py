"""Waits for ever without the GIL, in a job whose prompt says `hang`; other threads go on."""

from __future__ import annotations

import threading

from gpu_worker.contract.job import Job
from tests.pipelines.instant import Instant


class Waits(Instant):
    """As a kernel that never ends, whose caller waits outside Python."""

    def before_step(self, step: int, job: Job) -> None:
        if "hang" in job.request.prompt and step == 1:
            threading.Event().wait()


def load(settings: object) -> Waits:
    """The factory."""
    return Waits()
