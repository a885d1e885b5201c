"""Generates one image: the call of diffusers and its steps, a second pass, and a refiner's end.

The pipeline has everything of the job already. Nothing is loaded here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from gpu_worker.contract.request import Hires
from gpu_worker.pipeline.families import call_parameters
from gpu_worker.pipeline.integrity import finite_values, kept_pixels, nonfinite_cause
from gpu_worker.pipeline.loading import task_pipelines
from gpu_worker.pipeline.loading.loaded_model import unsupported
from gpu_worker.pipeline.sampling import hires, latent_preview, step_callbacks
from gpu_worker.pipeline.sampling.context import GenerationContext
from gpu_worker.pipeline.sampling.latent_preview import LatentPreviews
from gpu_worker.pipeline.sampling.refiner import MaskBlend, RefinerPipeline
from gpu_worker.pipeline.sampling.step_log import StepLog
from gpu_worker.pipeline_api import GeneratedImage, OnStep

Enlarge = Callable[[Image.Image, str, tuple[int, int]], Image.Image]
"""Makes an image larger: the image, an upscaler's name, and width and height in pixels."""


@dataclass
class ImageGenerator:
    """The generator of a job's images.

    `arguments` are those of the pipeline's call, and `metadata` describes them in the record.
    """

    context: GenerationContext
    pipe: Any
    arguments: dict[str, Any]
    metadata: dict[str, Any]
    enlarge: Enlarge
    refiner: RefinerPipeline | None = None

    def generate(self, number: int, on_step: OnStep) -> GeneratedImage:
        """Generate the image of the request's seed + `number`, counted from 0.

        Raises:
            Unsupported: the family has no second pass.
        """
        request = self.context.request
        seed = (request.seed or 0) + number
        # A generator on the CPU gives the same noise for a seed on every device.
        generator = torch.Generator("cpu").manual_seed(seed)
        log = StepLog(self.context.loaded.device) if request.step_log else None
        counter = StepCounter(on_step, number, request.num_images_per_prompt)
        run = _Run(self, generator, counter, log)
        if request.hires is None:
            image = run.last_pass(self.pipe, self.arguments)
        else:
            image = run.with_hires(request.hires)
        steps_log = {} if log is None else {"steps_log": log.rows}
        metadata = {"seed": seed, **self.metadata, **run.metadata, **steps_log}
        return GeneratedImage(self._with_kept_pixels(image, metadata), metadata)

    def _with_kept_pixels(self, image: Image.Image, metadata: dict[str, Any]) -> Image.Image:
        """Return the image with the sent pixels wherever the request's mask keeps them."""
        context = self.context
        masked = context.canvas.masked_input(context.request, context.images, image.size)
        if masked is None:
            return image
        metadata["mask_blend_px"] = kept_pixels.BLEND_PX
        return kept_pixels.restore(image, *masked)


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

    def step(self, step: int, steps: int, preview: Callable[[], Image.Image] | None) -> None:
        """Report step `step` of the `steps` of this pass."""
        self._total = self._before + steps
        steps_per_image = self._total + self.more
        position = self._number * steps_per_image + self._before + step
        self._on_step(position, self._count * steps_per_image, preview)


@dataclass
class _Run:
    """The passes of one image."""

    of: ImageGenerator
    generator: torch.Generator
    counter: StepCounter
    log: StepLog | None
    metadata: dict[str, Any] = field(default_factory=dict)

    def with_hires(self, request: Hires) -> Any:
        """Run a first pass, enlarge its image, and run image-to-image at that size."""
        of = self.of
        second = task_pipelines.for_mode(of.pipe, "img2img", controlnet=None)
        if second is None:
            reason = "has no image-to-image, which a second pass needs"
            raise unsupported("hires", request.model_dump(), of.pipe, reason)
        first_steps = of.metadata["num_inference_steps"]
        self.counter.more = hires.steps_after(request, first_steps)
        if of.refiner is not None:
            self.counter.more = of.refiner.base_steps + of.refiner.steps
        first = self._call(of.pipe, of.arguments | hires.output(request))[0]
        self.counter.next_pass()
        start = hires.upscale_first_pass(
            of.pipe,
            request,
            first,
            lambda image, size: of.enlarge(image, request.upscaler, size),
            of.context.loaded.side_multiple_px(),
        )
        parameters = call_parameters(second)
        arguments = {
            name: value
            for name, value in of.arguments.items()
            if name in parameters and name not in hires.FIRST_PASS_ONLY
        }
        arguments |= {"image": start, "strength": request.strength}
        sides = hires.sides(second, start)
        arguments |= {name: side for name, side in sides.items() if name in parameters}
        arguments["num_inference_steps"] = request.num_inference_steps or first_steps
        return self.last_pass(second, arguments)

    def last_pass(self, pipe: Any, arguments: dict[str, Any]) -> Any:
        """Run the last pass, with the refiner if there is one, and return the image."""
        refiner = self.of.refiner
        if refiner is None:
            return self._call(pipe, arguments)[0]
        self.counter.more = refiner.steps
        until = {"denoising_end": refiner.switch_at, "output_type": "latent"}
        latents = self._call(pipe, arguments | until)
        self.counter.next_pass()
        with refiner.on_device():
            blend = refiner.mask_blend(arguments, self.generator)
            refiner_arguments = refiner.arguments(latents, arguments, self.of.metadata)
            return self._call(refiner.pipe, refiner_arguments, blend)[0]

    def _call(self, pipe: Any, arguments: dict[str, Any], blend: MaskBlend | None = None) -> Any:
        factor = int(getattr(pipe, "vae_scale_factor", 8))
        loaded = self.of.context.loaded
        previews = LatentPreviews(pipe.scheduler, factor, lambda z: loaded.colors(pipe, z))
        has_vae = getattr(pipe, "vae", None) is not None
        watched = finite_values.watch(pipe, arguments)

        def on_step_end(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> Any:
            if blend is not None:
                tensors["latents"] = blend(pipe, index, tensors["latents"])
            if self.log is not None:
                self.log.note(pipe, timestep, tensors)
            at = latent_preview.step_index(pipe.scheduler, index, timestep)
            latents = tensors.get("latents") if has_vae else None
            preview = None if latents is None else previews.after(at, latents)
            with notes.paused():
                self.counter.step(index + 1, step_callbacks.steps_of(pipe), preview)
            return tensors

        with watched as notes, step_callbacks.report_steps(pipe, on_step_end) as callback:
            output = pipe(**arguments, **callback, generator=self.generator)
        self._check(notes, pipe)
        return output.images

    def _check(self, notes: finite_values.ValueNotes, pipe: Any) -> None:
        """Check that the values of a pass are finite; note the dtype that the VAE needed.

        Raises:
            Unsupported: they are not; the sentence names the part and the field.
        """
        of = self.of
        cause = notes.cause()
        if cause is not None:
            refiner = of.refiner
            base = refiner.base if refiner is not None and pipe is refiner.pipe else None
            context = of.context
            raise nonfinite_cause.refusal(cause, pipe, context.request, context.loaded.name, base)
        if notes.vae_dtype is not None:
            self.metadata["vae_dtype"] = notes.vae_dtype
