"""What latents look like: decoded by the VAE, or through a linear map that is fitted to it.

Knows no job and no scheduler.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch.nn import functional

_SAMPLES, _SAMPLE_SIDE = 4, 12
"""Pictures, and their side in latent pixels. Few and small: encoding them is the dearest part of a
job's previews (bench/previews.py)."""

LEAST_FIT = 0.7
"""Share of the colours' variance that a linear map must explain to be of use. Stable Diffusion's
autoencoders are nearly linear; the built-in model's, of 100,000 parameters, explains half."""


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


def decode(pipe: Any, latents: torch.Tensor) -> Image.Image:
    """The picture of latents, as the pipeline itself decodes them."""
    vae = pipe.vae
    scaled = latents / vae.config.scaling_factor + (getattr(vae.config, "shift_factor", None) or 0)
    with torch.no_grad():
        pixels = vae.decode(scaled.to(vae.dtype), return_dict=False)[0]
    made: Image.Image = pipe.image_processor.postprocess(pixels.detach())[0]
    return made
