"""The second pass of a picture: made larger, and drawn over by image to image at that size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image
from torch.nn import functional

from gpu_worker.contract.checks import LATENT
from gpu_worker.contract.field_types import SIDE_MULTIPLE_PX
from gpu_worker.contract.output_size import hires_size
from gpu_worker.contract.request import Hires
from gpu_worker.pipeline.loading.loaded_model import unsupported

FIRST_PASS_ONLY = frozenset({"width", "height", "image", "mask_image", "strength", "latents"})
"""Arguments that are not the second pass's; nor are ControlNets', which it does without."""


def steps_after(hires: Hires, first_steps: int) -> int:
    """Steps that the second pass takes, as diffusers' get_timesteps counts them; that of flow
    matching makes one where it would be none."""
    asked = hires.num_inference_steps or first_steps
    return max(1, min(int(asked * hires.strength), asked))


def output(hires: Hires) -> dict[str, str]:
    """What the first pass shall give: latents where they are made larger, else the picture."""
    return {"output_type": "latent" if hires.upscaler == LATENT else "pil"}


def upscale_first_pass(
    pipe: Any,
    hires: Hires,
    first: Any,
    enlarge: Callable[[Image.Image, tuple[int, int]], Image.Image],
    multiple: int = SIDE_MULTIPLE_PX,
) -> Any:
    """What image to image begins with: interpolated latents, or the picture made larger.

    Args:
        first: the first pass's output: a picture, or latents with scaling factor, (4, height / 8,
            width / 8).
        multiple: of pixels, what the pipeline's sides are.

    Raises:
        Unsupported: this family's latents cannot be interpolated.
    """
    if isinstance(first, Image.Image):
        return enlarge(first, hires_size(first.size, hires.scale, multiple))
    latents = first if first.ndim == 4 else first[None]
    if latents.ndim != 4:
        why = "packs its latents: use upscaler lanczos, or one of models.toml"
        raise unsupported("hires.upscaler", hires.upscaler, pipe, why)
    factor = int(pipe.vae_scale_factor)
    height, width = (int(side) * factor for side in latents.shape[2:])
    size = hires_size((width, height), hires.scale, multiple)
    shape = (size[1] // factor, size[0] // factor)
    return functional.interpolate(latents.float(), shape, mode="bilinear").to(latents.dtype)


def sides(pipe: Any, begun: Any) -> dict[str, int]:
    """Width and height of the second pass, for classes that would draw their own size else."""
    if isinstance(begun, Image.Image):
        return {"width": begun.width, "height": begun.height}
    factor = int(pipe.vae_scale_factor)
    return {"width": begun.shape[3] * factor, "height": begun.shape[2] * factor}
