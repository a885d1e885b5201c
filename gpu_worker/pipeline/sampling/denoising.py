"""Denoises: calls a pipeline, reports its steps, and checks the values of every part.

A pipeline that runs in stages ends with latents, and `decoding` makes the image. Every other one
runs whole: diffusers' own path, which stays the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from gpu_worker.pipeline.execution import offload, vae_calls
from gpu_worker.pipeline.inputs.context import GenerationContext
from gpu_worker.pipeline.integrity import finite_values, nonfinite_cause
from gpu_worker.pipeline.sampling import decoding, step_callbacks
from gpu_worker.pipeline.sampling.latent_preview import LatentPreviews
from gpu_worker.pipeline.sampling.step_log import StepLog
from gpu_worker.pipeline_api import OnStep, Preview

Blend = Callable[[Any, int, torch.Tensor], torch.Tensor]
"""Changes the latents after a step: the pipeline, the step from 0, and the latents."""


class StepCounter:
    """Counts the steps of an image's passes, over all images of the job."""

    def __init__(self, on_step: OnStep, number: int, count: int) -> None:
        self._on_step = on_step
        self._number = number
        self._count = count
        self._before = 0
        self._total = 0
        self.more = 0
        """The number of steps after this pass."""

    def next_pass(self) -> None:
        """Note the end of a pass. The next one may be the last."""
        self._before, self.more = self._total, 0

    def step(
        self,
        step: int,
        steps: int,
        preview: Callable[[], Preview | None] | None,
        partial: Callable[[], Image.Image] | None,
    ) -> None:
        """Report step `step` of the `steps` of this pass."""
        self._total = self._before + steps
        steps_per_image = self._total + self.more
        position = self._number * steps_per_image + self._before + step
        steps = self._count * steps_per_image
        self._on_step(position, steps, preview, *([] if partial is None else [partial]))


@dataclass
class Denoising:
    """The passes of one image.

    `metadata` gets what they add to the image's record. `finish` makes of a partial image what is
    made of the final one.
    """

    context: GenerationContext
    generator: torch.Generator
    counter: StepCounter
    log: StepLog | None
    finish: Callable[[Image.Image], Image.Image] = lambda image: image
    metadata: dict[str, Any] = field(default_factory=dict)

    def run(
        self,
        pipe: Any,
        arguments: dict[str, Any],
        *,
        as_latents: bool = False,
        blend: Blend | None = None,
        base: Any = None,
    ) -> Any:
        """Run a pass and return its image, or its latents as the pipeline returns them.

        Args:
            base: the pipeline that a refiner's pass takes over from.

        Raises:
            Unsupported: a part returned values that are not finite.
        """
        safe = vae_calls.of(getattr(pipe, "vae", None))
        if safe is not None:
            safe.begin()
        with finite_values.watch(pipe, arguments) as notes:
            result = self._result(pipe, arguments, blend, notes, as_latents)
        self._check(notes, pipe, base)
        if safe is not None:
            self.metadata |= safe.report
        if as_latents:
            return result
        if result.nsfw_content_detected is not None:
            self.metadata["nsfw_content_detected"] = result.nsfw_content_detected
        return result.image

    def _result(
        self,
        pipe: Any,
        arguments: dict[str, Any],
        blend: Blend | None,
        notes: finite_values.ValueNotes,
        as_latents: bool,
    ) -> Any:
        """Return latents, or a `Decoded`."""
        is_apart = decoding.is_apart(pipe)
        ends = {"output_type": "latent"} if as_latents or is_apart else {}
        on_step_end = self._on_step_end(pipe, blend, notes)
        with step_callbacks.report_steps(pipe, on_step_end) as callback:
            output = pipe(**arguments, **ends, **callback, generator=self.generator)
        if as_latents:
            return output.images
        if is_apart:
            return decoding.decode(pipe, output.images, self.generator)
        return decoding.of_output(output)

    def _on_step_end(
        self, pipe: Any, blend: Blend | None, notes: finite_values.ValueNotes
    ) -> step_callbacks.OnStepEnd:
        previews = LatentPreviews(pipe, self.context.loaded.latent_colors(pipe))

        def on_step_end(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> Any:
            if blend is not None:
                tensors["latents"] = blend(pipe, index, tensors["latents"])
            if self.log is not None:
                self.log.note(pipe, timestep, tensors)
            preview = previews.after(index, timestep, tensors.get("latents"))
            with notes.paused():
                partial = self._partial(pipe, previews)
                self.counter.step(index + 1, step_callbacks.steps_of(pipe), preview, partial)
            return tensors

        return on_step_end

    def _partial(self, pipe: Any, previews: LatentPreviews) -> Callable[[], Image.Image] | None:
        """Return what decodes the state after a step as the final latents are decoded.

        A job has it if it asks for partial images. A pipeline with offload would move its parts
        for that, so it has none.
        """
        if (
            not self.context.is_watched
            or not decoding.is_apart(pipe)
            or offload.is_offloaded(pipe.vae)
        ):
            return None

        def make() -> Image.Image:
            latents = previews.estimate()
            if latents is None:
                raise ValueError("the pipeline does not report its latents")
            return self.finish(decoding.decode_between(pipe, latents).image)

        return make

    def _check(self, notes: finite_values.ValueNotes, pipe: Any, base: Any) -> None:
        """Raise Unsupported, with the part and the field, where a value is not finite."""
        cause = notes.cause()
        if cause is not None:
            request, model = self.context.request, self.context.loaded.name
            raise nonfinite_cause.refusal(cause, pipe, request, model, base)
