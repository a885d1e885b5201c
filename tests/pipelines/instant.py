"""Noise of the asked size at once: the same seed gives the same pixels."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ClassVar

from PIL import Image

from gpu_worker.generation import Job

SIDE_PX = 64


class Instant:
    """Overridden by the others at `before_step`."""

    facts: ClassVar[dict[str, Any]] = {"model": "instant", "device": "cpu", "machine_size": "tiny"}

    def before_step(self, step: int, job: Job) -> None:
        """Called before each step, counted from 0."""

    def generate(self, job: Job, on_step: Callable[[int, int], None]) -> Image.Image:
        """Noise."""
        request = job.request
        for step in range(request.num_inference_steps):
            self.before_step(step, job)
            on_step(step + 1, request.num_inference_steps)
        width, height = request.width or SIDE_PX, request.height or SIDE_PX
        noise = random.Random(request.seed).randbytes(width * height * 3)
        return Image.frombytes("RGB", (width, height), noise)


def load(settings: object) -> Instant:
    """The factory."""
    return Instant()
