"""A small picture of a job in mid-way: the latents' best guess, through a linear map to colours.

The map is fitted once a model. A VAE that is not nearly linear decodes by itself: that is dearer,
and preview.py, which decides when, asks for it less often.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch.nn import functional

MOST_PX = 256
_SAMPLES, _SAMPLE_SIDE = 8, 16
LEAST_FIT = 0.7
"""Share of the colours' variance that a linear map must explain to be of use. Stable Diffusion's
autoencoders are nearly linear; the built-in model's, of 100,000 parameters, explains half."""

_SIGMA_SPACE = ("Euler", "Heun", "LMS", "KDPM2", "EDM", "FlowMatch")
"""Schedulers whose latents are x0 + sigma * noise, or x0 (1 - sigma) + sigma * noise: along both
a straight line in sigma leads to x0. Those of all others are sqrt(a) x0 + sqrt(1 - a) noise."""


class Projection:
    """Latents (1, channels, h, w) to colours, one pixel by one pixel.

    `fit` is the share of the variance that it explains on the pictures it was fitted to.
    """

    def __init__(self, matrix: torch.Tensor, fit: float = 1.0) -> None:
        self._matrix = matrix
        self.fit = fit

    @classmethod
    def fitted(cls, vae: Any, factor: int) -> Projection:
        """Made from how the VAE encodes a few pictures of coloured patches.

        Args:
            factor: pixels a latent pixel, `vae_scale_factor`.
        """
        side = _SAMPLE_SIDE * factor
        generator = torch.Generator("cpu").manual_seed(0)
        patches = torch.rand(_SAMPLES, 3, 2, 2, generator=generator) * 2 - 1
        first = next(vae.parameters())
        encoded = []
        for mode in ("nearest", "bilinear"):
            pictures = functional.interpolate(patches, (side, side), mode=mode)
            with torch.no_grad():
                found = vae.encode(pictures.to(vae.device, first.dtype))
            latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latent
            encoded.append((latents.float().cpu(), pictures))
        shift = getattr(vae.config, "shift_factor", None) or 0
        latents = (torch.cat([z for z, _ in encoded]) - shift) * vae.config.scaling_factor
        small = functional.adaptive_avg_pool2d(
            torch.cat([x for _, x in encoded]), latents.shape[2:]
        )
        flat = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
        known = torch.cat([flat, torch.ones(len(flat), 1)], dim=1)
        wanted = small.permute(0, 2, 3, 1).reshape(-1, 3)
        matrix = torch.linalg.lstsq(known, wanted).solution
        left = (known @ matrix - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()
        return cls(matrix, 1 - float(left))

    def picture(self, latents: torch.Tensor) -> Image.Image:
        """RGB, one pixel a latent pixel."""
        flat = latents[:1].float().cpu().permute(0, 2, 3, 1)
        colors = flat @ self._matrix[:-1] + self._matrix[-1]
        return Image.fromarray(((colors[0] / 2 + 0.5).clamp(0, 1) * 255).round().byte().numpy())


class Previews:
    """Of one picture. `draw` makes colours of latents, at any size."""

    def __init__(
        self, scheduler: Any, factor: int, draw: Callable[[torch.Tensor], Image.Image]
    ) -> None:
        self._scheduler = scheduler
        self._factor = factor
        self._draw = draw
        self._before: torch.Tensor | None = None

    def after(self, index: int, latents: torch.Tensor) -> Callable[[], Image.Image] | None:
        """What makes the preview after step `index` (from 0); None where there can be none."""
        if latents.ndim != 4:
            return None
        before, self._before = self._before, latents
        size = latents.shape[3] * self._factor, latents.shape[2] * self._factor

        def make() -> Image.Image:
            guess = latents if before is None else self._guess(index, before, latents)
            return shrunk(self._draw(guess), size)

        return make

    def _guess(self, index: int, before: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
        """x0, where the line through two steps' latents meets sigma 0."""
        if type(self._scheduler).__name__.startswith(_SIGMA_SPACE):
            sigmas = self._scheduler.sigmas
            if index + 1 >= len(sigmas):
                return now
            old, new = float(sigmas[index]), float(sigmas[index + 1])
            return now if old == new else now - (now - before) * (new / (new - old))
        timesteps, alphas = self._scheduler.timesteps, self._scheduler.alphas_cumprod
        if index + 1 >= len(timesteps):
            return now
        a, b = (float(alphas[int(timesteps[k])]) for k in (index, index + 1))
        old, new = ((1 - share) ** 0.5 / share**0.5 for share in (a, b))
        first, second = before / a**0.5, now / b**0.5
        return second if old == new else second - (second - first) * (new / (new - old))


def shrunk(small: Image.Image, most_px: tuple[int, int]) -> Image.Image:
    """At most MOST_PX on its longer side, and no larger than the picture itself will be."""
    scale = min(MOST_PX / max(small.size), most_px[0] / small.width)
    size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
    return small.resize(size, Image.Resampling.BILINEAR)
