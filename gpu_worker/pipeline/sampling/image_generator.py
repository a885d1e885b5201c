"""Draws one picture: the call of diffusers, its steps told, and what follows where it is asked: a
second pass, and a refiner for the last one's end.

Everything that a job brings stands in the pipeline already; nothing is loaded here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from gpu_worker.contract.request import GenerationRequest, Hires
from gpu_worker.pipeline.loading import task_pipelines
from gpu_worker.pipeline.loading.loaded_model import LoadedModel, NotSupported
from gpu_worker.pipeline.sampling import hires, latent_preview, step_callbacks
from gpu_worker.pipeline.sampling.latent_preview import LatentPreviews
from gpu_worker.pipeline.sampling.refiner import Keep, RefinerPipeline
from gpu_worker.pipeline.sampling.step_log import StepLog
from gpu_worker.pipeline_api import GeneratedImage, OnStep

Enlarge = Callable[[Image.Image, str, tuple[int, int]], Image.Image]
"""A picture, an upscaler's name, and width and height in pixels."""


@dataclass
class ImageGenerator:
    """A job's pictures, one after another. `arguments` are the call's, `said` the record's."""

    loaded: LoadedModel
    pipe: Any
    request: GenerationRequest
    arguments: dict[str, Any]
    said: dict[str, Any]
    enlarge: Enlarge
    refiner: RefinerPipeline | None = None

    def picture(self, place: int, on_step: OnStep) -> GeneratedImage:
        """The picture of seed + `place`.

        Raises:
            NotSupported: this family has no second pass.
        """
        seed = (self.request.seed or 0) + place
        # The generator lives on the CPU: a seed means the same noise on every device.
        generator = torch.Generator("cpu").manual_seed(seed)
        log = StepLog(self.loaded.device) if self.request.step_log else None
        told = StepCounter(on_step, place, self.request.num_images_per_prompt)
        if self.request.hires is None:
            image = self._finished(self.pipe, self.arguments, generator, told, log)
            said = self.said
        else:
            image, said = self._twice(self.request.hires, generator, told, log)
        logged = {} if log is None else {"steps_log": log.rows}
        return GeneratedImage(image, {"seed": seed, **said, **logged})

    def _twice(
        self, asked: Hires, generator: torch.Generator, told: StepCounter, log: StepLog | None
    ) -> tuple[Image.Image, dict[str, Any]]:
        second = task_pipelines.for_task(self.pipe, "image", controlnet=None)
        if second is None:
            why = "has no image to image, which a second pass is"
            raise NotSupported("hires", asked.model_dump(), self.pipe, why)
        first_steps = self.said["num_inference_steps"]
        hires.check(self.pipe, second, asked, first_steps)
        told.more = hires.steps_after(asked, first_steps)
        if self.refiner is not None:
            told.more = self.refiner.base_steps + self.refiner.steps
        first = self.arguments | hires.output(asked)
        latents = self._call(self.pipe, first, generator, told, log)[0]
        told.goes_on()
        begun = hires.upscale_first_pass(
            self.pipe,
            asked,
            latents,
            lambda image, size: self.enlarge(image, asked.upscaler, size),
            self.loaded.side_multiple_px(),
        )
        known = task_pipelines.call_parameters(second)
        again = {
            name: value
            for name, value in self.arguments.items()
            if name in known and name not in hires.FIRST_PASS_ONLY
        }
        again |= {"image": begun, "strength": asked.strength}
        sides = hires.sides(second, begun)
        again |= {name: side for name, side in sides.items() if name in known}
        again["num_inference_steps"] = asked.num_inference_steps or first_steps
        return self._finished(second, again, generator, told, log), self.said

    def _finished(
        self,
        pipe: Any,
        arguments: dict[str, Any],
        generator: torch.Generator,
        told: StepCounter,
        log: StepLog | None,
    ) -> Any:
        """A pass to its end: the picture."""
        refiner = self.refiner
        if refiner is None:
            return self._call(pipe, arguments, generator, told, log)[0]
        told.more = refiner.steps
        until = {"denoising_end": refiner.switch_at, "output_type": "latent"}
        latents = self._call(pipe, arguments | until, generator, told, log)
        told.goes_on()
        with refiner.at_work():
            keep = refiner.keeping(arguments, generator)
            given = refiner.arguments(latents, arguments, self.said)
            return self._call(refiner.pipe, given, generator, told, log, keep)[0]

    def _call(
        self,
        pipe: Any,
        arguments: dict[str, Any],
        generator: torch.Generator,
        told: StepCounter,
        log: StepLog | None,
        keep: Keep | None = None,
    ) -> Any:
        factor = int(getattr(pipe, "vae_scale_factor", 8))
        shown = LatentPreviews(pipe.scheduler, factor, lambda z: self.loaded.colors(pipe, z))
        has_vae = getattr(pipe, "vae", None) is not None

        def step_ended(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> Any:
            if keep is not None:
                tensors["latents"] = keep(pipe, index, tensors["latents"])
            if log is not None:
                log.note(pipe, timestep, tensors)
            at = latent_preview.step_index(pipe.scheduler, index, timestep)
            seen = tensors.get("latents") if has_vae else None
            preview = None if seen is None else shown.after(at, seen)
            told.step(index + 1, step_callbacks.steps_of(pipe), preview)
            return tensors

        with step_callbacks.report_steps(pipe, step_ended) as call:
            output = pipe(**arguments, **call, generator=generator)
        return output.images


class StepCounter:
    """Steps of a picture's passes, counted over all pictures of the job."""

    def __init__(self, on_step: OnStep, place: int, count: int) -> None:
        self._on_step = on_step
        self._place = place
        self._count = count
        self.before = 0
        self.more = 0
        self.total = 0

    def goes_on(self) -> None:
        """A pass has ended; the next one may be the last."""
        self.before, self.more = self.total, 0

    def step(self, step: int, steps: int, preview: Callable[[], Image.Image] | None) -> None:
        """`steps` of this pass; `before` were of the first, `more` come after it."""
        self.total = self.before + steps
        each = self.total + self.more
        done = self._place * each + self.before + step
        self._on_step(done, self._count * each, preview)
