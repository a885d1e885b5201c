"""A model on its device, and the sentence for a field that it does not know."""

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
from gpu_worker.pipeline.loading.latent_rgb import LEAST_FIT, Projection, decode

_SAMPLE_SIZE = 128
"""Latent pixels a side where neither denoiser nor pipeline says it: 1024 px at most VAEs."""


def unsupported(field_name: str, value: object, pipe: Any, reason: str) -> Unsupported:
    """The refusal of a field, or of this value of it, by the loaded pipeline."""
    return Unsupported(field_name, value, f"{type(pipe).__name__} {reason}")


@dataclass
class LoadedModel:
    """`pipe` is the text-to-image pipeline as it was loaded; nothing of a job stays in it.

    `name` is what clients call it.
    """

    name: str
    pipe: Any
    size: machine_size.Size
    device: torch.device
    defaults: Defaults = field(default_factory=Defaults)
    _projection: Projection | None = None

    def colors(self, pipe: Any, latents: torch.Tensor) -> Image.Image:
        """Latents (1, channels, h, w) as colours, cheaply where the VAE is nearly linear."""
        if self._projection is None:
            self._projection = Projection.fitted(pipe.vae, int(pipe.vae_scale_factor))
        if self._projection.fit >= LEAST_FIT:
            return self._projection.picture(latents)
        return decode(pipe, latents)

    def default_side_px(self) -> int:
        """The model's own size, bounded by what MACHINE_SIZE affords, in pixels."""
        side = min(self._native_side_px(), machine_size.SWITCHES[self.size].max_default_side_px)
        multiple = self.side_multiple_px()
        return max(side - side % multiple, multiple)

    def side_multiple_px(self) -> int:
        """What the pipeline would silently cut a side down to a multiple of."""
        processor = getattr(self.pipe, "image_processor", None)
        asked = getattr(processor, "config", {}).get("vae_scale_factor") or 1
        return math.lcm(int(asked), SIDE_MULTIPLE_PX)

    def _native_side_px(self) -> int:
        own = call_parameters(self.pipe)["width"].default
        if isinstance(own, int):
            return own
        sample = getattr(self.pipe, "default_sample_size", None)
        if family_of(self.pipe).pixel_sample_size:
            return int(sample or _SAMPLE_SIZE)
        denoiser = getattr(self.pipe, "unet", None) or getattr(self.pipe, "transformer", None)
        if denoiser is not None:
            sample = denoiser.config.get("sample_size") or sample
        if isinstance(sample, list | tuple):
            sample = max(sample)
        has_vae = getattr(self.pipe, "vae", None) is not None
        return int(sample or _SAMPLE_SIZE) * (int(self.pipe.vae_scale_factor) if has_vae else 1)
