"""A refiner of models.toml for one job: another UNet makes an SDXL picture's last steps.

diffusers' ensemble of experts: `denoising_end` of the base is `denoising_start` of the refiner.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.families import call_parameters
from gpu_worker.pipeline.loading import offload as placement
from gpu_worker.pipeline.loading.loaded_model import unsupported
from gpu_worker.pipeline.sampling import prompt_embedding, refiner_loading
from gpu_worker.pipeline.sampling.context import GenerationContext

MaskBlend = Callable[[Any, int, torch.Tensor], torch.Tensor]
"""Of a pipeline, a step from 0 and its latents: the latents with what a mask keeps put back."""

_FROM_BASE = ("num_inference_steps", "guidance_scale", "guidance_rescale", "eta")
"""Arguments of the base's call that are the refiner's too."""


@dataclass(frozen=True)
class RefinerPipeline:
    """`pipe` is image to image with the refiner's UNet; `base` the pipeline that begins.

    `base_steps` and `steps` are how many each makes of a picture's last pass; `words` are the
    prompts as its call takes them.
    """

    pipe: Any
    base: Any
    device: torch.device
    switch_at: float
    base_steps: int
    steps: int
    prompt_arguments: dict[str, Any]

    @contextlib.contextmanager
    def on_device(self) -> Iterator[None]:
        """Within, it has the device; with offload, the base's parts wait on the CPU."""
        with (
            placement.suspended(self.base) as offload,
            placement.applied(self.pipe, offload, self.device),
        ):
            yield

    def arguments(
        self, latents: torch.Tensor, call: dict[str, Any], metadata: dict[str, Any]
    ) -> dict[str, Any]:
        """What its call takes but generator and callback.

        Args:
            latents: where the base has stopped, (1, 4, h, w).
            of_base: the arguments of the base's call.
            said: what the record says of the call: the base's own defaults.
        """
        resolved = {name: metadata[name] for name in ("num_inference_steps", "guidance_scale")}
        base_arguments = {name: call[name] for name in _FROM_BASE if name in call}
        start = {"image": latents, "denoising_start": self.switch_at}
        return resolved | base_arguments | self.prompt_arguments | start

    def mask_blend(self, of_base: dict[str, Any], generator: torch.Generator) -> MaskBlend | None:
        """What puts the picture under the mask's black back after each step; None without a mask.

        diffusers' inpainting with denoising_start would put back the base's unfinished latents,
        noise and all: its image is then what it begins with, no picture any more.
        """
        if of_base.get("mask_image") is None:
            return None
        pipe, device = self.pipe, self.pipe._execution_device
        image = pipe.image_processor.preprocess(of_base["image"])
        with torch.no_grad():
            known_latents = pipe.prepare_latents(
                image,
                None,
                1,
                1,
                self.prompt_arguments["prompt_embeds"].dtype,
                device,
                generator,
                False,
            )
        noise = torch.randn(known_latents.shape, generator=generator).to(
            device, known_latents.dtype
        )
        white_mask = self.base.mask_processor.preprocess(of_base["mask_image"])
        mask = functional.interpolate(white_mask, known_latents.shape[2:]).to(
            device, known_latents.dtype
        )

        def blend(pipe: Any, index: int, latents: torch.Tensor) -> torch.Tensor:
            timesteps = pipe.scheduler.timesteps
            position = len(timesteps) - int(pipe.num_timesteps) + index + 1
            background = known_latents
            if position < len(timesteps):
                background = pipe.scheduler.add_noise(
                    known_latents, noise, timesteps[position : position + 1]
                )
            return (1 - mask) * background + mask * latents

        return blend


@contextlib.contextmanager
def attach(
    pipe: Any, context: GenerationContext, resolved: dict[str, Any]
) -> Iterator[RefinerPipeline | None]:
    """The refiner that a request names, None without one. It lives for this job.

    Args:
        pipe: the job's pipeline, with everything else that the request names.
        resolved: num_inference_steps and strength, as the call has them.

    Raises:
        Unsupported: this pipeline cannot stop on the way, no step is left for one of the two, or
            it was made for another family of models.
        ModelsError: models.toml does not know it, or it is none.
    """
    loaded, request = context.loaded, context.request
    refiner_request = request.refiner
    if refiner_request is None:
        yield None
        return
    _check(pipe, request)
    base_steps, steps = _split_steps(pipe, request, resolved)
    refiner_pipe = refiner_loading.pipeline(pipe, context)
    refiner_pipe.set_progress_bar_config(disable=True)
    refiner = RefinerPipeline(
        refiner_pipe, pipe, loaded.device, refiner_request.switch_at, base_steps, steps, {}
    )
    with refiner.on_device(), _without_loras(pipe, request):
        refiner.prompt_arguments.update(_prompt_arguments(refiner_pipe, request))
    yield refiner


def _check(pipe: Any, request: GenerationRequest) -> None:
    name = request.refiner.name if request.refiner else None
    if request.hires is None and "denoising_end" not in call_parameters(pipe):
        raise unsupported("refiner", name, pipe, "makes all steps itself and leaves it none")


def _split_steps(
    pipe: Any, request: GenerationRequest, resolved: dict[str, Any]
) -> tuple[int, int]:
    """How many steps of the last pass are the base's and the refiner's.

    Raises:
        Unsupported: one of them has none.
    """
    steps_total, strength, switch_at = (
        resolved["num_inference_steps"],
        resolved.get("strength"),
        1.0,
    )
    if request.hires is not None:
        steps_total = request.hires.num_inference_steps or steps_total
        strength = request.hires.strength
    if request.refiner is not None:
        switch_at = request.refiner.switch_at
    counts = split_steps(pipe.scheduler, steps_total, switch_at, strength)
    for part, steps in zip(("the base", "the refiner"), counts, strict=True):
        if steps == 0:
            suffix = "" if strength is None else f" and strength {strength:g}"
            why = f"leaves {part} no step, with {steps_total} num_inference_steps{suffix}"
            raise unsupported("refiner.switch_at", switch_at, pipe, why)
    return counts


def split_steps(
    scheduler: Any, steps: int, switch_at: float, strength: float | None = None
) -> tuple[int, int]:
    """How many steps base and refiner make, as diffusers' calls and get_timesteps count them.

    Args:
        strength: of image to image and inpainting, which leave out their first steps.
    """
    planned = copy.deepcopy(scheduler)
    planned.set_timesteps(steps)
    trained = planned.config.num_train_timesteps
    cutoff = round(trained - switch_at * trained)
    skipped = 0 if strength is None else max(steps - min(int(steps * strength), steps), 0)
    base_steps = int((planned.timesteps[skipped * planned.order :] >= cutoff).sum())
    refiner_steps = int((planned.timesteps < cutoff).sum())
    if planned.order == 2 and refiner_steps and refiner_steps % 2 == 0:
        refiner_steps += 1
    return base_steps, refiner_steps


def _prompt_arguments(pipe: Any, request: GenerationRequest) -> dict[str, Any]:
    """The prompts as its text encoder reads them, once for all pictures."""
    prompt_arguments, _ = prompt_embedding.build(pipe, request)
    if "prompt_embeds" in prompt_arguments:
        return prompt_arguments
    names = ("", "negative_", "pooled_", "negative_pooled_")
    with torch.no_grad():
        embeds = pipe.encode_prompt(**prompt_arguments, clip_skip=request.clip_skip)
    return {f"{name}prompt_embeds": each for name, each in zip(names, embeds, strict=True)}


@contextlib.contextmanager
def _without_loras(pipe: Any, request: GenerationRequest) -> Iterator[None]:
    """A text encoder that both share has the base's LoRAs: they are not the refiner's."""
    if not request.loras:
        yield
        return
    pipe.disable_lora()
    try:
        yield
    finally:
        pipe.enable_lora()
