"""Creates previews of a running job, from the latents' estimate of the final image.

Where no linear map fits the VAE, the VAE decodes the estimate. That costs more, so such previews
are less frequent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

MAX_PX = 256
_SIGMA_SPACE = ("Euler", "Heun", "LMS", "KDPM2", "EDM", "FlowMatch")
"""Schedulers whose latents are x0 + sigma * noise, or x0 (1 - sigma) + sigma * noise.

For both, a straight line in sigma leads to x0. All others have sqrt(a) x0 + sqrt(1 - a) noise.
"""


class LatentPreviews:
    """The previews of one image. `to_image` turns latents into an image of any size."""

    def __init__(
        self, scheduler: Any, factor: int, to_image: Callable[[torch.Tensor], Image.Image]
    ) -> None:
        self._scheduler = scheduler
        self._factor = factor
        self._to_image = to_image
        self._previous: torch.Tensor | None = None

    def after(self, index: int, latents: torch.Tensor) -> Callable[[], Image.Image] | None:
        """Return a function that makes the preview after step `index` (from 0), or None."""
        if latents.ndim != 4:
            return None
        previous, self._previous = self._previous, latents
        size = latents.shape[3] * self._factor, latents.shape[2] * self._factor

        def make() -> Image.Image:
            guess = latents if previous is None else self._guess(index, previous, latents)
            return shrink(self._to_image(guess), size)

        return make

    def _guess(self, index: int, previous: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
        """Return x0, where the line through two steps' latents meets sigma 0."""
        if type(self._scheduler).__name__.startswith(_SIGMA_SPACE):
            sigmas = self._scheduler.sigmas
            if index + 1 >= len(sigmas):
                return current
            old, new = float(sigmas[index]), float(sigmas[index + 1])
            return current if old == new else current - (current - previous) * (new / (new - old))
        timesteps = self._scheduler.timesteps
        alphas = getattr(self._scheduler, "alphas_cumprod", None)
        if alphas is None or index + 1 >= len(timesteps):
            return current
        a, b = (float(alphas[int(timesteps[k])]) for k in (index, index + 1))
        old, new = ((1 - share) ** 0.5 / share**0.5 for share in (a, b))
        first, second = previous / a**0.5, current / b**0.5
        return second if old == new else second - (second - first) * (new / (new - old))


def step_index(scheduler: Any, index: int, timestep: Any) -> int:
    """Return the position of a step in the scheduler's lists, from 0; call it after the step.

    It differs from `index` where a call skips steps, as image-to-image does.
    """
    scheduler_index = getattr(scheduler, "step_index", None)
    if scheduler_index is not None:
        return max(int(scheduler_index) - 1, 0)
    matches = (scheduler.timesteps == timestep).nonzero().flatten().tolist()
    return next((position for position in matches if position >= index), index)


def shrink(small: Image.Image, max_size: tuple[int, int]) -> Image.Image:
    """Resize a preview to MAX_PX on its longer side, but not beyond the final image."""
    scale = min(MAX_PX / max(small.size), max_size[0] / small.width)
    size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
    return small.resize(size, Image.Resampling.BILINEAR)
