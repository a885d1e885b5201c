"""What SDE_PIPELINE's factory returns, and how it tells of pictures, steps and failures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from gpu_worker.contract.capabilities import Capabilities
from gpu_worker.contract.job import Job
from gpu_worker.contract.request import GenerationRequest

__all__ = ["DeviceLost", "GeneratedImage", "OnStep", "OutOfMemory", "Pipeline"]


class OutOfMemory(RuntimeError):
    """The device's memory did not suffice; the process can go on."""


class DeviceLost(RuntimeError):
    """The device's state is beyond repair (a sticky CUDA error); the process must be replaced."""


@dataclass(frozen=True)
class GeneratedImage:
    """A picture, and what its own record says of it: `seed` at least, where there is one.

    `parameters` is A1111's text of a picture that was not drawn but made of another: that one's.
    """

    image: Image.Image
    facts: dict[str, Any]
    parameters: str | None = None


class OnStep(Protocol):
    """After each step, counted from 1 over all pictures of the job.

    `preview` makes a small picture of what there is so far; it may be called or not.
    """

    def __call__(
        self, step: int, steps: int, preview: Callable[[], Image.Image] | None = None
    ) -> None:
        """Raises what ends the job; a pipeline must let it pass."""


class Pipeline(Protocol):
    """What SDE_PIPELINE's factory returns. `facts` are those of now; another thread reads them."""

    facts: dict[str, Any]
    described: int
    """Counts the changes of what describe() says."""

    loaded: str | None
    """The name of the model in memory."""

    def generate(self, job: Job, on_step: OnStep) -> list[GeneratedImage]:
        """All pictures of a job, in order. Loads the job's model when it is not there.

        Raises:
            Refused: it cannot be done.
            OutOfMemory: the process may go on.
            DeviceLost: it may not.
        """

    def facts_of(self, request: GenerationRequest) -> dict[str, Any]:
        """What every record of a request says of what has a part in it, or would have had: of no
        other model than its own. Asked on the main thread when the request's job has ended."""

    def describe(self) -> Capabilities:
        """What can be asked of it, as docs/http-api.md draws it for GET /server/models."""

    def refresh(self) -> None:
        """Asked while it has nothing to do: take in what the operator has changed meanwhile."""

    def load(self, model: str | None) -> None:
        """Have a model of models.toml ready; None: the one of SDE_MODEL.

        Raises:
            Exception: it cannot be loaded; none is loaded then.
        """

    def unload(self) -> None:
        """Let go of the model and of its memory."""
