"""Runs out of Python's memory: `make` in the prompt while it draws, `write` once it has drawn."""

from __future__ import annotations

import resource
from pathlib import Path

from gpu_worker.contract.job import Job
from gpu_worker.pipeline_api import GeneratedImage, OnStep
from tests.pipelines.instant import Instant


class Hoards(Instant):
    """After `write` nothing of a mebibyte can be allocated any more, until the next job."""

    def generate(self, job: Job, on_step: OnStep) -> list[GeneratedImage]:
        """Noise, and then no room to encode it."""
        allow(resource.RLIM_INFINITY)
        if "make" in job.request.prompt:
            bytearray(1 << 62)
        pictures = super().generate(job, on_step)
        if "write" in job.request.prompt:
            # glibc keeps what was freed: without a threshold set it would serve us from there.
            status = Path("/proc/self/status").read_text().splitlines()
            taken = next(int(line.split()[1]) for line in status if line.startswith("VmData"))
            allow(taken * 1024 + (1 << 19))
        return pictures


def allow(size_bytes: int) -> None:
    """So much writable memory has this process, and no more."""
    resource.setrlimit(resource.RLIMIT_DATA, (size_bytes, resource.RLIM_INFINITY))


def load(settings: object) -> Hoards:
    """The factory."""
    return Hoards()
