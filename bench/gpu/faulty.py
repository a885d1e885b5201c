"""The worker's own pipeline, whose jobs can break the card: a factory for SDE_PIPELINE.

A prompt that begins with `fault:` names what happens after its first step. Every other job is as
ever.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.gpu import card

PREFIX = "fault: "
SPIN_S = 120.0
"""How long the endless kernel takes. It ends by itself if nobody ends its process."""

BEGUN = "spinning"
"""The file of the data folder that says that the kernel is queued."""


class Faulty:
    """A pipeline that does what the one inside it does, and breaks the card when a job says so."""

    def __init__(self, inner: Any, folder: Path) -> None:
        self._inner = inner
        self._folder = folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def generate(self, job: Any, on_step: Any) -> Any:
        """Return the job's images, unless it breaks the card."""
        prompt = str(job.request.prompt)
        if not prompt.startswith(PREFIX):
            return self._inner.generate(job, on_step)
        act = FAULTS[prompt.removeprefix(PREFIX)]

        def breaking(step: int, steps: int, preview: Any = None) -> None:
            on_step(step, steps, preview)
            if step == 1:
                act(self._folder)

        return self._inner.generate(job, breaking)


def assertion(_: Path) -> None:
    """Read past the end of an embedding. Its kernel fails, and a later call reports that."""
    if card.is_make_believe():
        _lose(710, "device-side assert triggered")
    weights = torch.ones(16, 16, device=card.DEVICE)
    torch.nn.functional.embedding(torch.full((4,), 1 << 20, device=card.DEVICE), weights)


def assertion_in_cublas(folder: Path) -> None:
    """Break the card as `assertion` does, and let cuBLAS be the first to notice."""
    assertion(folder)
    one = torch.ones(512, 512, device=card.DEVICE, dtype=torch.float16)
    for _ in range(1000):
        one = one @ one


def endless_kernel(folder: Path) -> None:
    """Wait for a kernel that takes longer than any deadline."""
    (folder / BEGUN).touch()
    if card.is_make_believe():
        time.sleep(SPIN_S)
    card.spin(SPIN_S)
    torch.cuda.synchronize()


def _lose(code: int, message: str) -> None:
    from tests.support.cuda.faults import FAULTS as make_believe

    make_believe.lose_device(code, message)


FAULTS: dict[str, Callable[[Path], None]] = {
    "assertion": assertion,
    "assertion in cuBLAS": assertion_in_cublas,
    "endless kernel": endless_kernel,
}


def load(settings: Any) -> Faulty:
    """Return the worker's pipeline on the run's card."""
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    card.enter()
    # diffusers keeps what torch.cuda says when it is imported.
    from gpu_worker import pipeline

    return Faulty(pipeline.load(settings), settings.data_dir)
