"""Turns latents into colours: with the VAE, or with a linear map that is fitted to the VAE.

It knows no job and no scheduler.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch.nn import functional

_IMAGES, _IMAGE_SIDE = 4, 12
"""The number of images to fit to, and their side in latent pixels.

They are few and small: encoding them is the most expensive part of previews (bench/previews.py).
"""

MIN_FIT = 0.7
"""Share of the colours' variance that a linear map must explain to be used.

Stable Diffusion's autoencoders are nearly linear. For the built-in model the share is one half.
"""


class Projection:
    """A linear map from latents (1, channels, h, w) to colours, pixel by pixel.

    `fit` is the share of the variance that it explains on the images that it is fitted to.
    """

    def __init__(self, matrix: torch.Tensor, fit: float = 1.0) -> None:
        self._matrix = matrix
        self.fit = fit

    @classmethod
    def from_vae(cls, vae: Any, factor: int) -> Projection:
        """Fit a map to how the VAE encodes a few images of coloured patches.

        Args:
            factor: pixels per latent pixel, `vae_scale_factor`.
        """
        side = _IMAGE_SIDE * factor
        generator = torch.Generator("cpu").manual_seed(0)
        patches = torch.rand(_IMAGES, 3, 2, 2, generator=generator) * 2 - 1
        parameter = next(vae.parameters())
        encoded = []
        for mode in ("nearest", "bilinear"):
            images = functional.interpolate(patches, (side, side), mode=mode)
            with torch.no_grad():
                output = vae.encode(images.to(vae.device, parameter.dtype))
            latents = output.latent_dist.mode() if hasattr(output, "latent_dist") else output.latent
            encoded.append((latents.float().cpu(), images))
        shift = getattr(vae.config, "shift_factor", None) or 0
        latents = (torch.cat([z for z, _ in encoded]) - shift) * vae.config.scaling_factor
        small = functional.adaptive_avg_pool2d(
            torch.cat([x for _, x in encoded]), latents.shape[2:]
        )
        flat = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
        inputs = torch.cat([flat, torch.ones(len(flat), 1)], dim=1)
        targets = small.permute(0, 2, 3, 1).reshape(-1, 3)
        matrix = torch.linalg.lstsq(inputs, targets).solution
        residual = (inputs @ matrix - targets).square().sum() / (
            targets - targets.mean(0)
        ).square().sum()
        return cls(matrix, 1 - float(residual))

    def image(self, latents: torch.Tensor) -> Image.Image:
        """Return an RGB image with one pixel per latent pixel."""
        flat = latents[:1].float().cpu().permute(0, 2, 3, 1)
        colors = flat @ self._matrix[:-1] + self._matrix[-1]
        return Image.fromarray(((colors[0] / 2 + 0.5).clamp(0, 1) * 255).round().byte().numpy())


def decode(pipe: Any, latents: torch.Tensor) -> Image.Image:
    """Return the image of latents, decoded as the pipeline does."""
    vae = pipe.vae
    scaled = latents / vae.config.scaling_factor + (getattr(vae.config, "shift_factor", None) or 0)
    with torch.no_grad():
        pixels = vae.decode(scaled.to(vae.dtype), return_dict=False)[0]
    image: Image.Image = pipe.image_processor.postprocess(pixels.detach())[0]
    return image
