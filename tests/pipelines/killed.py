"""Is killed in the middle of a job whose prompt says `poison`, as by the kernel's OOM killer."""

from __future__ import annotations

import os
import signal

from gpu_worker.contract.job import Job
from tests.pipelines.instant import Instant


class Killed(Instant):
    """SIGKILLs its own process."""

    def before_step(self, step: int, job: Job) -> None:
        if "poison" in job.request.prompt:
            os.kill(os.getpid(), signal.SIGKILL)


def load(settings: object) -> Killed:
    """The factory."""
    return Killed()
