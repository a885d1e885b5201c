"""Turns latents into colours: through a linear map, or through the VAE itself.

A map is published for the VAEs of Stable Diffusion 1, 2 and XL, and fitted to any other VAE. The
module knows no job and no scheduler.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils.modeling import get_state_dict_offloaded_model
from PIL import Image
from torch.nn import functional

_IMAGES, _IMAGE_SIDE = 4, 12
"""The number of images to fit to, and their side in latent pixels.

They are few and small: encoding them is the most expensive part of previews (bench/previews.py).
"""

MIN_FIT = 0.7
"""Share of the colours' variance that a linear map must explain to be used.

Stable Diffusion's autoencoders are nearly linear. The share was one half for one that was not.
"""

_FACTOR = 8
"""Pixels per latent pixel of the VAEs below."""

_SD = [[0.298, 0.207, 0.208], [0.187, 0.286, 0.173], [-0.158, 0.189, 0.264]]
_SD += [[-0.184, -0.271, -0.473], [0.0, 0.0, 0.0]]
"""Of Stable Diffusion 1 and 2: discuss.huggingface.co/t/23204, whose colours are -1 to 1."""

_XL = [[60.0, 60.0, 60.0], [-60.0, -5.0, 10.0], [25.0, 15.0, -5.0], [-70.0, -50.0, -35.0]]
_XL += [[150.0, 140.0, 130.0]]
"""Of Stable Diffusion XL: diffusers' guide to callbacks, whose colours are 0 to 255."""

_PUBLISHED: dict[tuple[float, ...], torch.Tensor] = {
    (4, 0.18215, 0.0): torch.tensor(_SD),
    (4, 0.13025, 0.0): torch.tensor(_XL) / 127.5 - torch.tensor([[0.0]] * 4 + [[1.0]]),
}
"""Maps by the VAE's latent_channels, scaling_factor and shift_factor. The last row is added."""


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
            vae: in float32 on the CPU, such as `encoder_copy` returns.
            factor: pixels per latent pixel, `vae_scale_factor`.

        Returns:
            A map of fit 0 where the VAE's latents are not finite.
        """
        encoded = [_encoded(vae, factor, mode) for mode in ("nearest", "bilinear")]
        latents = torch.cat([latents for latents, _ in encoded])
        small = functional.adaptive_avg_pool2d(
            torch.cat([images for _, images in encoded]), latents.shape[2:]
        )
        flat = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
        inputs = torch.cat([flat, torch.ones(len(flat), 1)], dim=1)
        targets = small.permute(0, 2, 3, 1).reshape(-1, 3)
        if not inputs.isfinite().all():
            # MKL would print that a parameter is incorrect.
            return cls(torch.zeros(inputs.shape[1], 3), 0.0)
        matrix = torch.linalg.lstsq(inputs, targets).solution
        residual = (inputs @ matrix - targets).square().sum() / (
            targets - targets.mean(0)
        ).square().sum()
        return cls(matrix, 1 - float(residual))

    @classmethod
    def published(cls, vae: Any, factor: int) -> Projection | None:
        """Return the published map of a VAE, or None. It takes no time."""
        config = vae.config
        names = ("latent_channels", "scaling_factor", "shift_factor")
        matrix = _PUBLISHED.get(tuple(config.get(name) or 0.0 for name in names))
        return None if matrix is None or factor != _FACTOR else cls(matrix)

    def image(self, latents: torch.Tensor) -> Image.Image:
        """Return an RGB image with one pixel per latent pixel. The latents are on the CPU."""
        flat = latents[:1].float().permute(0, 2, 3, 1)
        return _image((flat @ self._matrix[:-1] + self._matrix[-1])[0])


def encoder_copy(vae: Any) -> Any:
    """Return a copy of a VAE without its decoder, in float32 on the CPU and without hooks.

    The VAE stays where it is, even if its layers come to the device one by one. Weights that are
    on the CPU in float32 already are shared.
    """
    with torch.device("meta"):
        copy = type(vae).from_config(vae.config)
    copy.decoder = torch.nn.Identity()
    copy.load_state_dict(get_state_dict_offloaded_model(vae), strict=False, assign=True)
    return copy.to("cpu", torch.float32).eval()


def decode(pipe: Any, latents: torch.Tensor) -> torch.Tensor:
    """Return pixels (3, height, width), -1 to 1, of the VAE's own method.

    They are on the device that computes, and the host does not wait for them. `vae_calls` would
    wait to see whether they overflow, and try again.
    """
    vae = pipe.vae
    shift, scale = _normalization(vae)
    scaled, device = (latents / scale + shift).to(vae.dtype), pipe._execution_device
    if device.type == "cuda":
        scaled = scaled.pin_memory()  # a copy from other memory waits for all steps before it
    with torch.no_grad():
        scaled = scaled.to(device, non_blocking=scaled.is_pinned())
        pixels: torch.Tensor = type(vae).decode(vae, scaled, return_dict=False)[0][0]
    return pixels.float()


def pixels_image(pixels: torch.Tensor) -> Image.Image:
    """Return pixels (3, height, width), -1 to 1, on the CPU as an RGB image."""
    return _image(pixels.permute(1, 2, 0))


def _encoded(vae: Any, factor: int, mode: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the latents of the coloured patches, as a denoiser has them, and the patches."""
    generator = torch.Generator("cpu").manual_seed(0)
    patches = torch.rand(_IMAGES, 3, 2, 2, generator=generator) * 2 - 1
    images = functional.interpolate(patches, (_IMAGE_SIDE * factor,) * 2, mode=mode)
    with torch.no_grad():
        output = vae.encode(images)
    latents = output.latent_dist.mode() if hasattr(output, "latent_dist") else output.latent
    shift, scale = _normalization(vae)
    return (latents - shift) * scale, images


def _normalization(vae: Any) -> tuple[Any, Any]:
    """Return what is subtracted from a VAE's latents, and by what they are multiplied then."""
    config = vae.config
    shift, scale = config.get("shift_factor") or 0.0, config.get("scaling_factor") or 1.0
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if mean is None or deviation is None:
        return shift, scale
    return torch.tensor(mean).view(1, -1, 1, 1), scale / torch.tensor(deviation).view(1, -1, 1, 1)


def _image(colors: torch.Tensor) -> Image.Image:
    """Return colours (h, w, 3), -1 to 1, as an image. What overflowed is grey, black or white."""
    values = ((colors / 2 + 0.5).nan_to_num(0.5).clamp(0, 1) * 255).round()
    return Image.fromarray(values.byte().numpy())
