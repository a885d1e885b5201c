"""Holds a model on its device, and words the error for a field that it does not support."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from gpu_worker.assets.model_library import Defaults
from gpu_worker.contract.field_types import SIDE_MULTIPLE_PX
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.families import call_parameters, family_of
from gpu_worker.pipeline.loading import machine_size
from gpu_worker.pipeline.loading.latent_rgb import MIN_FIT, Projection, decode

_SAMPLE_SIZE = 128
"""Latent pixels a side where neither denoiser nor pipeline has one: 1024 px with most VAEs."""


def unsupported(field_name: str, value: object, pipe: Any, reason: str) -> Unsupported:
    """Return the error for a field, or a value of it, that the pipeline does not support."""
    return Unsupported(field_name, value, f"{type(pipe).__name__} {reason}")


@dataclass
class LoadedModel:
    """A loaded model.

    `pipe` is the text-to-image pipeline, which keeps nothing of a job. `name` is the name in
    requests.
    """

    name: str
    pipe: Any
    size: machine_size.Size
    device: torch.device
    defaults: Defaults = field(default_factory=Defaults)
    _projection: Projection | None = None

    def colors(self, pipe: Any, latents: torch.Tensor) -> Image.Image:
        """Return latents (1, channels, h, w) as an image, through a linear map where it fits."""
        if self._projection is None:
            self._projection = Projection.from_vae(pipe.vae, int(pipe.vae_scale_factor))
        if self._projection.fit >= MIN_FIT:
            return self._projection.image(latents)
        return decode(pipe, latents)

    def default_side_px(self) -> int:
        """Return the model's native side in pixels, limited by MACHINE_SIZE."""
        side = min(self._native_side_px(), machine_size.SWITCHES[self.size].max_default_side_px)
        multiple = self.side_multiple_px()
        return max(side - side % multiple, multiple)

    def side_multiple_px(self) -> int:
        """Return the multiple in pixels that the pipeline silently rounds sides down to."""
        processor = getattr(self.pipe, "image_processor", None)
        factor = getattr(processor, "config", {}).get("vae_scale_factor") or 1
        return math.lcm(int(factor), SIDE_MULTIPLE_PX)

    def _native_side_px(self) -> int:
        default = call_parameters(self.pipe)["width"].default
        if isinstance(default, int):
            return default
        sample_size = getattr(self.pipe, "default_sample_size", None)
        if family_of(self.pipe).pixel_sample_size:
            return int(sample_size or _SAMPLE_SIZE)
        denoiser = getattr(self.pipe, "unet", None) or getattr(self.pipe, "transformer", None)
        if denoiser is not None:
            sample_size = denoiser.config.get("sample_size") or sample_size
        if isinstance(sample_size, list | tuple):
            sample_size = max(sample_size)
        has_vae = getattr(self.pipe, "vae", None) is not None
        return int(sample_size or _SAMPLE_SIZE) * (
            int(self.pipe.vae_scale_factor) if has_vae else 1
        )
