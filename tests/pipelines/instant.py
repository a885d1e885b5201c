"""Noise of the asked size at once: the same seed gives the same pixels."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ClassVar

from PIL import Image

from gpu_worker.contract.capabilities import Capabilities
from gpu_worker.contract.job import Job
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline_api import GeneratedImage, OnStep, Preview

SIDE_PX = 64


class Instant:
    """Overridden by the others at `before_step`."""

    metadata: ClassVar[dict[str, Any]] = {
        "model": "instant",
        "device": "cpu",
        "machine_size": "tiny",
    }

    described = 1
    loaded: str | None = "instant"

    def before_step(self, step: int, job: Job) -> None:
        """Called before each step, counted from 0."""

    preview: Callable[[], Preview | None] | None = None
    """Makes a picture of what there is so far; None: it offers none."""

    def generate(self, job: Job, on_step: OnStep) -> list[GeneratedImage]:
        """Noise."""
        request = job.request
        for step in range(request.steps):
            self.before_step(step, job)
            on_step(step + 1, request.steps, self.preview)
        width, height = request.width or SIDE_PX, request.height or SIDE_PX
        pictures = []
        for number in range(request.num_images_per_prompt):
            seed = (request.seed or 0) + number
            noise = random.Random(seed).randbytes(width * height * 3)
            image = Image.frombytes("RGB", (width, height), noise)
            pictures.append(GeneratedImage(image, {"seed": seed}))
        return pictures

    def request_metadata(self, request: GenerationRequest) -> dict[str, Any]:
        """One model at most."""
        return self.metadata

    def describe(self) -> Capabilities:
        """Nothing said, so nothing is refused."""
        return Capabilities()

    def gpu_memory(self) -> tuple[int, int] | None:
        """It has no GPU."""
        return None

    def refresh(self) -> None:
        """Nobody changes it."""

    def load(self, model: str | None) -> None:
        """It has nothing to load."""

    def unload(self) -> None:
        """Nor to let go."""


def load(settings: object) -> Instant:
    """The factory."""
    return Instant()
