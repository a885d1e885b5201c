"""Decodes latents into an image: the last stage of a pipeline, where it can run apart.

It computes what diffusers' own calls compute after their last step, and moves 8-bit pixels.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from gpu_worker.pipeline.execution import offload
from gpu_worker.pipeline.families import call_parameters, family_of

NETWORKS = (AutoencoderKL, AutoencoderTiny)
"""Autoencoders that need nothing but latents. An asymmetric one also reads the mask."""


@dataclass(frozen=True)
class Decoded:
    """An image, and whether the model's safety checker blackened it; None without a checker."""

    image: Image.Image
    nsfw_content_detected: bool | None = None


def is_apart(pipe: Any) -> bool:
    """Return whether a pipeline's call may end with latents, which `decode` takes."""
    return (
        "decoding" in family_of(pipe).apart
        and isinstance(getattr(pipe, "vae", None), NETWORKS)
        and type(getattr(pipe, "image_processor", None)) is VaeImageProcessor
        and "output_type" in call_parameters(pipe)
    )


def decode(pipe: Any, latents: torch.Tensor, generator: torch.Generator) -> Decoded:
    """Return the image of latents (1, c, h, w), which have the scale of the denoiser."""
    decoded = decode_between(pipe, latents, generator)
    offload.finish(pipe)
    return decoded


def decode_between(
    pipe: Any, latents: torch.Tensor, generator: torch.Generator | None = None
) -> Decoded:
    """Return the image of latents as decode() does, while more of the pipeline's work follows."""
    with torch.no_grad():
        named = {"generator": generator} if _takes_generator(pipe.vae) else {}
        # The dtype of a wider VAE comes first, or the scaled latents would be rounded to float16.
        wide = latents.to(torch.promote_types(latents.dtype, pipe.vae.dtype))
        scaled = _scaled(pipe.vae.config, wide).to(pipe._execution_device)
        pixels = pipe.vae.decode(scaled, return_dict=False, **named)[0]
        pixels, is_nsfw = _checked(pipe, pixels)
        if getattr(pipe, "watermark", None) is not None:
            pixels = pipe.watermark.apply_watermark(pixels)
        is_normalized = pipe.image_processor.config.do_normalize and not is_nsfw
        image = to_image(pixels, normalized=is_normalized)
    return Decoded(image, is_nsfw)


def of_output(output: Any) -> Decoded:
    """Return the image of a call of diffusers that ran all stages."""
    flags = getattr(output, "nsfw_content_detected", getattr(output, "nsfw_detected", None))
    is_nsfw = bool(flags[0]) if isinstance(flags, list | tuple) and flags else None
    return Decoded(output.images[0], is_nsfw)


def to_image(pixels: torch.Tensor, *, normalized: bool = True) -> Image.Image:
    """Return the first image of (n, 3, h, w), in -1..1 if it is normalized, else in 0..1.

    The steps and their rounding are those of diffusers' VaeImageProcessor. Only bytes are copied
    from the device.
    """
    first = pixels[:1]
    unit = (first * 0.5 + 0.5).clamp(0, 1) if normalized else first
    octets = (unit[0].permute(1, 2, 0).float() * 255).round().to(torch.uint8)
    return Image.fromarray(octets.cpu().numpy())


def _scaled(config: Any, latents: torch.Tensor) -> torch.Tensor:
    """Return latents in the scale of the VAE. No call of these families reads `shift_factor`."""
    mean, std = (getattr(config, f"latents_{name}", None) for name in ("mean", "std"))
    if mean is not None and std is not None:
        mean, std = (torch.tensor(each).view(1, -1, 1, 1).to(latents) for each in (mean, std))
        return latents * std / config.scaling_factor + mean
    return latents / config.scaling_factor


def _checked(pipe: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, bool | None]:
    """Return the pixels and whether the safety checker blackened them, which makes them zeros."""
    if getattr(pipe, "safety_checker", None) is None:
        return pixels, None
    checked, flags = pipe.run_safety_checker(pixels, pipe._execution_device, pipe.unet.dtype)
    return checked, bool(flags[0])


def _takes_generator(vae: Any) -> bool:
    return "generator" in inspect.signature(type(vae).decode).parameters
