"""The second pass of a picture: made larger, and drawn over by image to image at that size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch.nn import functional

from gpu_worker.pipeline.latents import decode
from gpu_worker.pipeline.loaded import NotSupported
from gpu_worker.pipeline.upscalers import LATENT
from gpu_worker.request import SIDE_MULTIPLE_PX, Hires

FIRST_PASS_ONLY = frozenset({"width", "height", "image", "mask_image", "strength", "latents"})
"""Arguments that are not the second pass's; nor are ControlNets', which it does without."""


def size_after(width: int, height: int, scale: float) -> tuple[int, int]:
    """Width and height of the second pass in pixels: multiples of 8, at least one more."""
    return tuple(  # type: ignore[return-value]
        max(round(side * scale / SIDE_MULTIPLE_PX) * SIDE_MULTIPLE_PX, side + SIDE_MULTIPLE_PX)
        for side in (width, height)
    )


def steps_after(hires: Hires, first_steps: int) -> int:
    """Steps that the second pass takes, as diffusers' get_timesteps counts them."""
    asked = hires.num_inference_steps or first_steps
    return max(1, min(int(asked * hires.strength), asked))


def larger(
    pipe: Any,
    hires: Hires,
    latents: torch.Tensor,
    enlarge: Callable[[Image.Image, tuple[int, int]], Image.Image],
) -> Any:
    """What image to image begins with: interpolated latents, or the decoded picture made larger.

    Args:
        latents: the first pass's, (1, 4, height / 8, width / 8), with scaling factor.

    Raises:
        NotSupported: this family's latents cannot be interpolated.
    """
    if latents.ndim != 4:
        why = "packs its latents: use upscaler lanczos, or one of models.toml"
        raise NotSupported("hires.upscaler", hires.upscaler, pipe, why)
    factor = int(pipe.vae_scale_factor)
    height, width = (int(side) * factor for side in latents.shape[2:])
    size = size_after(width, height, hires.scale)
    if hires.upscaler == LATENT:
        shape = (size[1] // factor, size[0] // factor)
        return functional.interpolate(latents.float(), shape, mode="bilinear").to(latents.dtype)
    return enlarge(decode(pipe, latents), size)
