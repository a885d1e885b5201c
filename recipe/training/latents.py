"""A store of encoded images that renews itself: each latent serves a few training steps.

To encode an image costs a fraction of a training step, to draw one almost nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import torch
from diffusers import AutoencoderKL

from recipe.images import scenes
from recipe.images.compose import Composer
from recipe.training.precision import mixed
from recipe.training.vae import to_unit


@dataclass
class LatentStore:
    """Latents (n, 4, 24, 24) in half precision with their scenes, oldest overwritten first."""

    vae: AutoencoderKL
    composer: Composer
    rng: random.Random
    capacity: int
    latents: torch.Tensor | None = None
    contents: list[scenes.Scene] = field(default_factory=list)
    _next: int = 0

    @torch.no_grad()
    def add(self, count: int) -> None:
        """Draw and encode so many new images."""
        new = [scenes.random_scene(self.rng) for _ in range(count)]
        images = to_unit([self.composer.draw(scene, self.rng) for scene in new])
        device = next(self.vae.parameters()).device
        with mixed(device):
            latents = self.vae.encode(images.to(device)).latent_dist.mode()
        if self.latents is None:
            self.latents = torch.zeros(self.capacity, *latents.shape[1:], dtype=torch.float16)
        for scene, latent in zip(new, latents, strict=True):
            if len(self.contents) < self.capacity:
                self.contents.append(scene)
            self.latents[self._next], self.contents[self._next] = latent, scene
            self._next = (self._next + 1) % self.capacity

    def batch(self, count: int) -> tuple[torch.Tensor, list[str]]:
        """Random latents in single precision and a caption of each."""
        assert self.latents is not None
        places = [self.rng.randrange(len(self.contents)) for _ in range(count)]
        captions = [scenes.training_caption(self.contents[k], self.rng) for k in places]
        return self.latents[places].float(), captions
