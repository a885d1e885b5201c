"""Enlarges an image with the Lanczos filter, or with an ESRGAN-type upscaler of models.toml.

An upscaler model is loaded for each image and then unloaded.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from gpu_worker.assets.model_library import Library, ModelsError
from gpu_worker.contract.field_types import LANCZOS
from gpu_worker.pipeline.execution import alignment
from gpu_worker.pipeline.upscaling import spandrel_models

_TILE_PX, _OVERLAP_PX = 512, 32
"""A tile of 512 px needs about 2 GiB at scale 4; seams vanish within 32 px of overlap."""


def enlarge(
    image: Image.Image,
    name: str,
    size: tuple[int, int],
    library: Library,
    folder: Path,
    device: torch.device,
) -> Image.Image:
    """Return the image in RGB, enlarged to `size` (width, height) in pixels.

    Raises:
        ModelsError: no upscaler has this name, its file is not one, or spandrel is missing;
            or its values are not finite.
    """
    image = image.convert("RGB")
    if name != LANCZOS:
        model = spandrel_models.load(name, library, folder).to(device).eval()
        alignment.align(model.model, device)
        pixels = _upscale_tiles(model, _to_tensor(image).to(device))
        if not bool(pixels.isfinite().all()):
            raise ModelsError(f"upscalers.{name}: it produced NaN or infinite values: no image")
        image = _to_image(pixels)
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def versions(name: str) -> dict[str, str]:
    """Return the versions of the libraries that this upscaler uses."""
    libraries = {"pillow": PIL.__version__}
    return libraries if name == LANCZOS else libraries | {"spandrel": metadata.version("spandrel")}


def _to_tensor(image: Image.Image) -> torch.Tensor:
    """Return the pixels as (1, 3, height, width), 0..1."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255


def _to_image(pixels: torch.Tensor) -> Image.Image:
    array = (pixels[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array)


@torch.no_grad()
def _upscale_tiles(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Upscale in overlapping tiles, so that memory is bounded; each adds its inner part."""
    scale, (height, width) = int(model.scale), pixels.shape[2:]
    result = torch.empty(1, 3, height * scale, width * scale)
    step = _TILE_PX - 2 * _OVERLAP_PX
    for top in range(0, height, step):
        for left in range(0, width, step):
            y, x = max(0, top - _OVERLAP_PX), max(0, left - _OVERLAP_PX)
            tile = pixels[:, :, y : top + step + _OVERLAP_PX, x : left + step + _OVERLAP_PX]
            output = model(tile).cpu()[:, :, (top - y) * scale :, (left - x) * scale :]
            bottom, right = min(height, top + step) * scale, min(width, left + step) * scale
            inner = output[:, :, : bottom - top * scale, : right - left * scale]
            result[:, :, top * scale : bottom, left * scale : right] = inner
    return result
