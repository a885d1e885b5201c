"""Prepares the second pass of an image: upscaled, then image to image at that size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image
from torch.nn import functional

from gpu_worker.contract.field_types import LATENT, SIDE_MULTIPLE_PX
from gpu_worker.contract.output_size import hires_size
from gpu_worker.contract.request import Hires
from gpu_worker.pipeline.loading.loaded_model import unsupported

FIRST_PASS_ONLY = frozenset({"width", "height", "image", "mask_image", "strength", "latents"})
"""Call arguments that the second pass does not take over. It has no ControlNets either."""


def steps_after(hires: Hires, first_steps: int) -> int:
    """Return the second pass's steps, as diffusers' get_timesteps counts them.

    There is at least one, as in its flow-matching version.
    """
    steps = hires.num_inference_steps or first_steps
    return max(1, min(int(steps * hires.strength), steps))


def starts_from_latents(hires: Hires) -> bool:
    """Return whether the second pass starts from interpolated latents rather than from an image."""
    return hires.upscaler == LATENT


def upscale_first_pass(
    pipe: Any,
    hires: Hires,
    first: Any,
    enlarge: Callable[[Image.Image, tuple[int, int]], Image.Image],
    multiple: int = SIDE_MULTIPLE_PX,
) -> Any:
    """Return the start of image to image: interpolated latents, or the upscaled image.

    Args:
        first: the first pass's output: an image, or scaled latents (4, height / 8, width / 8).
        multiple: the sides are a multiple of this, in pixels.

    Raises:
        Unsupported: this family's latents cannot be interpolated.
    """
    if isinstance(first, Image.Image):
        return enlarge(first, hires_size(first.size, hires.scale, multiple))
    latents = first if first.ndim == 4 else first[None]
    if latents.ndim != 4:
        reason = "packs its latents: use upscaler lanczos, or one of models.toml"
        raise unsupported("hires.upscaler", hires.upscaler, pipe, reason)
    factor = int(pipe.vae_scale_factor)
    height, width = (int(side) * factor for side in latents.shape[2:])
    size = hires_size((width, height), hires.scale, multiple)
    shape = (size[1] // factor, size[0] // factor)
    return functional.interpolate(latents.float(), shape, mode="bilinear").to(latents.dtype)


def sides(pipe: Any, start: Any) -> dict[str, int]:
    """Return width and height of the second pass, for classes that need them set."""
    if isinstance(start, Image.Image):
        return {"width": start.width, "height": start.height}
    factor = int(pipe.vae_scale_factor)
    return {"width": start.shape[3] * factor, "height": start.shape[2] * factor}
