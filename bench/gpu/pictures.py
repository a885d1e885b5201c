"""Compares images and reads pipelines: how far two images are apart, what a job leaves behind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from bench.gpu import card
from gpu_worker.output.result_records import pixels_sha256
from gpu_worker.pipeline.execution import dtypes, offload
from gpu_worker.pipeline_api import GeneratedImage

SAME_DB = 99.0
"""Stands for images that are equal, whose ratio is infinite."""


def psnr_db(one: list[GeneratedImage], other: list[GeneratedImage]) -> float:
    """Return the peak signal-to-noise ratio of two jobs' images in dB, of the worst image.

    Raises:
        ValueError: the images differ in number or size.
    """
    pairs = zip(map(_pixels, one), map(_pixels, other), strict=True)
    return min(array_psnr_db(a, b, peak=255.0) for a, b in pairs)


def array_psnr_db(one: Any, other: Any, peak: float) -> float:
    """Return the peak signal-to-noise ratio of two arrays in dB, at most SAME_DB.

    Raises:
        ValueError: the arrays have other shapes.
    """
    if one.shape != other.shape:
        raise ValueError(f"the images have the sizes {one.shape} and {other.shape}")
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    if math.isnan(error):
        return math.nan
    return min(SAME_DB, 10 * math.log10(peak**2 / error)) if error else SAME_DB


def _pixels(generated: GeneratedImage) -> Any:
    return np.asarray(generated.image.convert("RGB"))


def digests(images: list[GeneratedImage]) -> list[str]:
    """Return the digest of each image's pixels, as the records have it."""
    return [pixels_sha256(each.image) for each in images]


def is_flat(images: list[GeneratedImage]) -> bool:
    """Return whether an image has a single colour, as one of NaN has."""
    return any(_pixels(each).min() == _pixels(each).max() for each in images)


def state(pipe: Any) -> dict[str, str]:
    """Return where each part of a pipeline rests, its dtype, and the pipeline's offload."""
    places = {
        name: f"{dtype} on {_places(getattr(pipe, name))}".replace("torch.", "")
        for name, dtype in dtypes.of_parts(pipe).items()
    }
    return places | {"offload": offload.current(pipe)}


def _places(module: torch.nn.Module) -> str:
    tensors = (*module.parameters(), *module.buffers())
    return "+".join(sorted({each.device.type for each in tensors})) or "nowhere"


def allocated_mib() -> float:
    """Return what torch holds of the card."""
    return round(torch.cuda.memory_allocated(card.DEVICE) / (1 << 20), 2)
