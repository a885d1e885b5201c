"""Runs a refiner of models.toml: another UNet makes the last steps of an SDXL image.

This is diffusers' ensemble of experts. `denoising_end` of the base is `denoising_start` of the
refiner.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.execution import offload
from gpu_worker.pipeline.families import call_parameters
from gpu_worker.pipeline.inputs.context import GenerationContext
from gpu_worker.pipeline.loading.loaded_model import unsupported
from gpu_worker.pipeline.sampling import encoding, refiner_loading
from gpu_worker.pipeline.sampling.denoising import Blend

_BASE_ARGUMENTS = ("num_inference_steps", "guidance_scale", "guidance_rescale", "eta")
"""Arguments of the base's call that the refiner's call gets, too."""


_GUIDED = 2.0
"""A guidance scale at which diffusers encodes the negative prompt too."""


@dataclass(frozen=True)
class RefinerPipeline:
    """A refiner for one job.

    `pipe` is an image-to-image pipeline with the refiner's UNet, and `base` the pipeline of the
    first steps. `base_steps` and `steps` are the steps that each makes of the last pass.
    `prompt_arguments` are the prompts as arguments of the refiner's call.
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
        """Give the device to the refiner. With offload, the base's parts wait on the CPU."""
        with (
            offload.suspended(self.base) as mode,
            offload.applied(self.pipe, mode, self.device),
        ):
            yield

    def arguments(
        self, latents: torch.Tensor, call: dict[str, Any], metadata: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the arguments of the refiner's call, without generator and callback.

        Args:
            latents: the latents of the base, of shape (1, 4, h, w).
            call: the arguments of the base's call.
            metadata: the record's metadata of the call, with the defaults of the base.
        """
        resolved = {name: metadata[name] for name in ("num_inference_steps", "guidance_scale")}
        base_arguments = {name: call[name] for name in _BASE_ARGUMENTS if name in call}
        start = {"image": latents, "denoising_start": self.switch_at}
        return resolved | base_arguments | self.prompt_arguments | start

    def mask_blend(self, of_base: dict[str, Any], generator: torch.Generator) -> Blend | None:
        """Return a function that restores the image under the mask's black after each step.

        Without a mask the method returns None. diffusers' inpainting with denoising_start would
        restore the base's unfinished latents with their noise, because these are its input.
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
    """Yield the refiner of a request, or None. It exists for this job only.

    Args:
        pipe: the job's pipeline, with everything else that the request names.
        resolved: num_inference_steps and strength of the call.

    Raises:
        Unsupported: the pipeline cannot stop before its last step, one of the two has no step, or
            the refiner is for another model family.
        ModelsError: models.toml does not have the name, or its files are not a refiner.
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
        raise unsupported(
            "refiner", name, pipe, "cannot stop before its last step, so a refiner has no step"
        )


def _split_steps(
    pipe: Any, request: GenerationRequest, resolved: dict[str, Any]
) -> tuple[int, int]:
    """Return the number of steps of base and refiner in the last pass.

    Raises:
        Unsupported: one of them has no step.
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
    """Return the number of steps of base and refiner, as diffusers' calls count them.

    Args:
        strength: of image-to-image and inpainting, which leave out their first steps.
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
    """Return the prompt embeddings of the refiner's text encoder, for all images."""
    prompt_arguments, _ = encoding.encode(pipe, request, _GUIDED)
    return prompt_arguments


@contextlib.contextmanager
def _without_loras(pipe: Any, request: GenerationRequest) -> Iterator[None]:
    """Disable the base's LoRAs in a text encoder that both share."""
    if not request.loras:
        yield
        return
    pipe.disable_lora()
    try:
        yield
    finally:
        pipe.enable_lora()
