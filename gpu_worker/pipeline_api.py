"""Defines what the factory of SDE_PIPELINE returns, and its images, steps and errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from gpu_worker.contract.capabilities import Capabilities
from gpu_worker.contract.job import Job
from gpu_worker.contract.request import GenerationRequest

__all__ = ["DeviceLost", "GeneratedImage", "OnStep", "OutOfMemory", "Pipeline", "Preview"]


class OutOfMemory(RuntimeError):
    """The device's memory is too small for the job. The process can continue."""


class DeviceLost(RuntimeError):
    """The device cannot recover, for example after a CUDA error. The process must be replaced."""


@dataclass(frozen=True)
class GeneratedImage:
    """An image and its own metadata, which include `seed` if there is one.

    `parameters` is A1111's text of an image that was made from another one: the text of that one.
    """

    image: Image.Image
    metadata: dict[str, Any]
    parameters: str | None = None


@dataclass(frozen=True)
class Preview:
    """A small image of a running job. `device_s` are the seconds of a GPU that it has cost."""

    image: Image.Image
    device_s: float = 0.0


class OnStep(Protocol):
    """A function that is called after each step, counted from 1 over all images of the job.

    `preview` makes a preview of the state after this step. It returns None while its data is on
    the way from the device, and can be called again at a later step. It need not be called.
    `partial` makes an image of full size of the same state, and may be called before the function
    returns. A pipeline passes it for jobs with `partial_images` alone.
    """

    def __call__(
        self,
        step: int,
        steps: int,
        preview: Callable[[], Preview | None] | None = None,
        partial: Callable[[], Image.Image] | None = None,
    ) -> None:
        """Raises an exception to end the job. A pipeline must not catch it."""


class Pipeline(Protocol):
    """The interface of a pipeline. Another thread reads `metadata`, its current metadata."""

    metadata: dict[str, Any]
    described: int
    """Counts the changes of what describe() says."""

    loaded: str | None
    """The name of the model in memory."""

    def generate(self, job: Job, on_step: OnStep) -> list[GeneratedImage]:
        """Return all images of a job, in order. Loads the model of the job if necessary.

        Raises:
            Refusal: the job cannot be done.
            OutOfMemory: the memory is too small; the process can continue.
            DeviceLost: the process must end.
        """

    def request_metadata(self, request: GenerationRequest) -> dict[str, Any]:
        """Return the metadata of a request for its record, of its own model only.

        The main thread calls this when the job of the request has ended.
        """

    def describe(self) -> Capabilities:
        """Return the capabilities, which docs/http-api.md describes for GET /server/models."""

    def gpu_memory(self) -> tuple[int, int] | None:
        """Return what all processes use of the GPU's memory, and its size, in bytes.

        The main thread calls this about once a second. None without a GPU.
        """

    def refresh(self) -> None:
        """Read the operator's changes. The worker calls this while it is idle."""

    def load(self, model: str | None) -> None:
        """Load a model of models.toml; None loads the model of SDE_MODEL.

        Raises:
            Exception: it cannot be loaded, and no model is loaded then.
        """

    def unload(self) -> None:
        """Remove the model from memory."""
