"""A model on its device, and the sentence for a field that it does not know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from gpu_worker import machine_size
from gpu_worker.faults import Refused
from gpu_worker.models import Defaults
from gpu_worker.pipeline.latents import LEAST_FIT, Projection, decode
from gpu_worker.request import SIDE_MULTIPLE_PX

_SAMPLE_SIZE = 128
"""Latent pixels a side where neither denoiser nor pipeline says it: 1024 px at most VAEs."""


class NotSupported(Refused):
    """The loaded pipeline does not know a field, or not this value of it."""

    def __init__(self, field_name: str, value: object, pipe: Any, why: str) -> None:
        super().__init__(f"{field_name}: {type(pipe).__name__} {why} (got {value!r})")


@dataclass
class Loaded:
    """`pipe` is the text-to-image pipeline as it was loaded; nothing of a job stays in it.

    `name` is what clients call it; `facts` say where its weights came from.
    """

    name: str
    pipe: Any
    size: machine_size.Size
    device: torch.device
    defaults: Defaults = field(default_factory=Defaults)
    facts: dict[str, Any] = field(default_factory=dict)
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
        denoiser = getattr(self.pipe, "unet", None) or self.pipe.transformer
        sample = denoiser.config.get("sample_size") or getattr(
            self.pipe, "default_sample_size", _SAMPLE_SIZE
        )
        if isinstance(sample, list | tuple):
            sample = max(sample)
        native = int(sample) * int(self.pipe.vae_scale_factor)
        side = min(native, machine_size.SWITCHES[self.size].max_default_side_px)
        return side - side % SIDE_MULTIPLE_PX
