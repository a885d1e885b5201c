"""Generates one image: its pass, a second pass, a refiner's last steps, and the mask's pixels.

The pipeline has everything of the job already. Nothing is loaded here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from gpu_worker.contract.request import Hires
from gpu_worker.pipeline.families import call_parameters
from gpu_worker.pipeline.inputs.context import GenerationContext
from gpu_worker.pipeline.integrity import kept_pixels
from gpu_worker.pipeline.loading import task_pipelines
from gpu_worker.pipeline.loading.loaded_model import unsupported
from gpu_worker.pipeline.sampling import hires
from gpu_worker.pipeline.sampling.denoising import Denoising, StepCounter
from gpu_worker.pipeline.sampling.refiner import RefinerPipeline
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
        passes = Denoising(
            self.context,
            generator,
            counter,
            log,
            finish=lambda image: self._with_kept_pixels(image, {}),
        )
        run = _Run(self, passes)
        if request.hires is None:
            image = run.last_pass(self.pipe, self.arguments)
        else:
            image = run.with_hires(request.hires)
        steps_log = {} if log is None else {"steps_log": log.rows}
        metadata = {"seed": seed, **self.metadata, **run.passes.metadata, **steps_log}
        return GeneratedImage(self._with_kept_pixels(image, metadata), metadata)

    def _with_kept_pixels(self, image: Image.Image, metadata: dict[str, Any]) -> Image.Image:
        """Return the image with the sent pixels wherever the request's mask keeps them."""
        context = self.context
        masked = context.canvas.masked_input(context.request, context.images, image.size)
        if masked is None:
            return image
        metadata["mask_blend_px"] = kept_pixels.BLEND_PX
        return kept_pixels.restore(image, *masked)


@dataclass
class _Run:
    """The passes of one image."""

    of: ImageGenerator
    passes: Denoising

    def with_hires(self, request: Hires) -> Image.Image:
        """Run a first pass, enlarge its image, and run image-to-image at that size."""
        of = self.of
        second = task_pipelines.for_mode(of.pipe, "img2img", controlnet=None)
        if second is None:
            reason = "has no image-to-image, which a second pass needs"
            raise unsupported("hires", request.model_dump(), of.pipe, reason)
        first_steps = of.metadata["num_inference_steps"]
        self.passes.counter.more = hires.steps_after(request, first_steps)
        if of.refiner is not None:
            self.passes.counter.more = of.refiner.base_steps + of.refiner.steps
        as_latents = hires.starts_from_latents(request)
        first = self.passes.run(of.pipe, of.arguments, as_latents=as_latents)
        self.passes.counter.next_pass()
        if as_latents:
            first = first[0]
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

    def last_pass(self, pipe: Any, arguments: dict[str, Any]) -> Image.Image:
        """Run the last pass, with the refiner if there is one, and return the image."""
        refiner = self.of.refiner
        if refiner is None:
            image: Image.Image = self.passes.run(pipe, arguments)
            return image
        self.passes.counter.more = refiner.steps
        until = {"denoising_end": refiner.switch_at}
        latents = self.passes.run(pipe, arguments | until, as_latents=True)
        self.passes.counter.next_pass()
        with refiner.on_device():
            blend = refiner.mask_blend(arguments, self.passes.generator)
            refiner_arguments = refiner.arguments(latents, arguments, self.of.metadata)
            refined: Image.Image = self.passes.run(
                refiner.pipe, refiner_arguments, blend=blend, base=refiner.base
            )
            return refined
