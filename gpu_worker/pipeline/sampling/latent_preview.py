"""A small picture of a job in mid-way: the latents' best guess, through a linear map to colours.

A VAE that is not nearly linear decodes by itself: that is dearer, and preview.py, which decides
when, asks for it less often.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

MOST_PX = 256
_SIGMA_SPACE = ("Euler", "Heun", "LMS", "KDPM2", "EDM", "FlowMatch")
"""Schedulers whose latents are x0 + sigma * noise, or x0 (1 - sigma) + sigma * noise: along both
a straight line in sigma leads to x0. Those of all others are sqrt(a) x0 + sqrt(1 - a) noise."""


class LatentPreviews:
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
            return shrink(self._draw(guess), size)

        return make

    def _guess(self, index: int, before: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
        """x0, where the line through two steps' latents meets sigma 0."""
        if type(self._scheduler).__name__.startswith(_SIGMA_SPACE):
            sigmas = self._scheduler.sigmas
            if index + 1 >= len(sigmas):
                return now
            old, new = float(sigmas[index]), float(sigmas[index + 1])
            return now if old == new else now - (now - before) * (new / (new - old))
        timesteps = self._scheduler.timesteps
        alphas = getattr(self._scheduler, "alphas_cumprod", None)
        if alphas is None or index + 1 >= len(timesteps):
            return now
        a, b = (float(alphas[int(timesteps[k])]) for k in (index, index + 1))
        old, new = ((1 - share) ** 0.5 / share**0.5 for share in (a, b))
        first, second = before / a**0.5, now / b**0.5
        return second if old == new else second - (second - first) * (new / (new - old))


def step_index(scheduler: Any, index: int, timestep: Any) -> int:
    """Where in the scheduler's lists a step stands, from 0: step `index` of a call that began or
    ended on the way, as image to image and a refiner do. To be asked after the step."""
    counted = getattr(scheduler, "step_index", None)
    if counted is not None:
        return max(int(counted) - 1, 0)
    found = (scheduler.timesteps == timestep).nonzero().flatten().tolist()
    return next((at for at in found if at >= index), index)


def shrink(small: Image.Image, most_px: tuple[int, int]) -> Image.Image:
    """At most MOST_PX on its longer side, and no larger than the picture itself will be."""
    scale = min(MOST_PX / max(small.size), most_px[0] / small.width)
    size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
    return small.resize(size, Image.Resampling.BILINEAR)
