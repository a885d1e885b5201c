"""Holds a model on its device, and words the error for a field that it does not support."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any

import torch

from gpu_worker.assets.model_library import Defaults
from gpu_worker.contract.field_types import SIDE_MULTIPLE_PX
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.execution import dtypes, machine_size, offload
from gpu_worker.pipeline.execution.offload import Offload
from gpu_worker.pipeline.families import call_parameters, denoiser_of, family_of
from gpu_worker.pipeline.loading.latent_rgb import MIN_FIT, Projection, encoder_copy
from gpu_worker.pipeline.loading.vocabulary import Vocabulary

log = logging.getLogger(__name__)

_SAMPLE_SIZE = 128
"""Latent pixels a side where neither denoiser nor pipeline has one: 1024 px with most VAEs."""


def unsupported(field_name: str, value: object, pipe: Any, reason: str) -> Unsupported:
    """Return the error for a field, or a value of it, that the pipeline does not support."""
    return Unsupported(field_name, value, f"{type(pipe).__name__} {reason}")


@dataclass
class LoadedModel:
    """A loaded model.

    `pipe` is the text-to-image pipeline, which keeps nothing of a job. `name` is the name in
    requests. `size` bounds default images, and `placement` is the MACHINE_SIZE in use, which is
    below it where the model does not fit. `vocabulary` holds the words of the built-in model.
    """

    name: str
    pipe: Any
    size: machine_size.Size
    placement: machine_size.Size
    device: torch.device
    defaults: Defaults = field(default_factory=Defaults)
    vocabulary: Vocabulary | None = None
    _projection: Projection | None = None

    def __post_init__(self) -> None:
        """Note the dtype and the number of layers of each network."""
        self._networks = _networks(self.pipe)

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the denoiser, which a network of the same job needs too."""
        return dtypes.of_denoiser(self.pipe)

    def is_intact(self) -> bool:
        """Return whether each network has its dtype, layers and hooks, also after a failed job."""
        expected = self.offload
        if expected == "none":
            expected = offload.current(self.pipe)  # hooks that somebody else has set may stay
        is_same = _networks(self.pipe) == self._networks
        return is_same and offload.is_in_place(self.pipe, expected)

    @property
    def offload(self) -> Offload:
        """Return where the parts of the pipeline rest."""
        return machine_size.offload_for(self.pipe, self.placement, self.device)

    def latent_colors(self, pipe: Any) -> Projection | Any | None:
        """Return what turns a pipeline's latents into colours for previews, or None.

        That is a linear map where one fits the model's VAE. Else it is the pipeline itself, whose
        VAE decodes them. A pipeline with offload would move its parts for that, so it has none.

        The first call may take seconds. It must come before the first step.
        """
        if getattr(pipe, "vae", None) is None or hasattr(pipe, "_pack_latents"):
            return None
        is_offloaded = offload.is_offloaded(pipe.vae)
        if self._projection is None:
            self._projection = self._projection_of_vae()
            if self._projection.fit < MIN_FIT and is_offloaded:
                reason = "no linear map fits its VAE, and its parts are offloaded"
                log.info("%s has no previews: %s", self.name, reason)
        if self._projection.fit >= MIN_FIT:
            return self._projection
        return None if is_offloaded else pipe

    def _projection_of_vae(self) -> Projection:
        vae = self.pipe.vae
        try:
            factor = int(self.pipe.vae_scale_factor)
            published = Projection.published(vae, factor)
            return published or Projection.from_vae(encoder_copy(vae), factor)
        except Exception as error:  # a job does not fail for its previews
            log.warning("%s: no linear map fits its latents: %s", self.name, error)
            return Projection(torch.zeros(1, 3), 0.0)

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
        denoiser = denoiser_of(self.pipe)
        if denoiser is not None:
            sample_size = denoiser.config.get("sample_size") or sample_size
        if isinstance(sample_size, list | tuple):
            sample_size = max(sample_size)
        has_vae = getattr(self.pipe, "vae", None) is not None
        return int(sample_size or _SAMPLE_SIZE) * (
            int(self.pipe.vae_scale_factor) if has_vae else 1
        )


def _networks(pipe: Any) -> tuple[dict[str, torch.dtype], list[int]]:
    """Return the dtypes of a pipeline's networks, and how many layers each has."""
    return dtypes.of_parts(pipe), [len(list(each.modules())) for each in offload.modules(pipe)]
