"""Compares two results: their metadata, their pixels, and the logs of their steps.

The module sends no request. Only the distance of pixels needs Pillow.
"""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass
from typing import Any

from sde_client.errors import NotComparable
from sde_client.records import Result

VOLATILE = frozenset(
    {
        *("uuid", "created_time", "started_time", "ended_time", "seconds", "sequence"),
        *("submission", "attempt", "peak_memory_bytes", "pixels_sha256", "steps_log", "request"),
        *("step", "steps", "image_index", "num_images", "num_images_per_prompt", "errors"),
        *("state", "step_log", "format", "crc32", "png", "source"),
    }
)
"""Keys that describe one run. They may differ between two runs of the same request."""


@dataclass(frozen=True)
class Distance:
    """The distance between two images of one size.

    `psnr_db` is the peak signal-to-noise ratio in dB, infinite for equal images. `largest` is the
    largest difference of one channel of one pixel, from 0 to 255.
    """

    psnr_db: float
    largest: int


@dataclass(frozen=True)
class Comparison:
    """The comparison of two results.

    `differences` holds (name, first value, second value). `identical` is about the pixels only.
    `distance` is None for equal pixels, for different sizes, and without Pillow.
    """

    first: Result
    second: Result
    identical: bool
    differences: list[tuple[str, Any, Any]]
    distance: Distance | None = None


@dataclass(frozen=True)
class Divergence:
    """The first step, from 1, at which two step logs differ.

    `first` and `second` are the rows of both logs; a row is None after the end of its log.
    """

    step: int
    first: dict[str, Any] | None
    second: dict[str, Any] | None


def compare(first: Result, second: Result) -> Comparison:
    """Compare two results that have their images.

    Raises:
        NotComparable: a record has no checksum of its pixels, and Pillow is not installed.
    """
    actual = pixels_sha256(first.png)
    one, other = _pixels(first, actual), _pixels(second, pixels_sha256(second.png))
    differing = [*_alterations(first, actual), *differences(first, second)]
    distance = None if one == other else _distance(first.png, second.png)
    return Comparison(first, second, one == other, differing, distance)


def differences(first: Result, second: Result) -> list[tuple[str, Any, Any]]:
    """Return the metadata that differ. Nested keys are joined with dots."""
    one, other = (_flatten(_metadata(result)) for result in (first, second))
    names = [*one, *(name for name in other if name not in one)]
    return [
        (name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)
    ]


def divergence(first: Result, second: Result) -> Divergence | None:
    """Return the first difference of both step logs, or None if they are equal.

    Raises:
        ValueError: a result has no step log.
    """
    logs = []
    for result in (first, second):
        log = result.extra.get("steps_log")
        if not isinstance(log, list):
            raise ValueError(f"{result.uuid} has no step log; generate it with --step-log")
        logs.append([row if isinstance(row, dict) else {} for row in log])
    one, other = logs
    for index in range(max(len(one), len(other))):
        left = one[index] if index < len(one) else None
        right = other[index] if index < len(other) else None
        if left is None or right is None or _state(left) != _state(right):
            return Divergence(index + 1, left, right)
    return None


def _state(row: dict[str, Any]) -> tuple[Any, ...]:
    return row.get("timestep"), row.get("sigma"), row.get("latents_sha256")


def _metadata(result: Result) -> dict[str, Any]:
    metadata = {"prompt": result.prompt, "seed": result.seed, **result.extra}
    return {name: value for name, value in metadata.items() if name not in VOLATILE}


def _flatten(metadata: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in metadata.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _pixels(result: Result, actual: str | None) -> str:
    """Return the checksum of the image, or the record's where the image cannot be decoded."""
    checksum = actual or result.extra.get("pixels_sha256")
    if not isinstance(checksum, str):
        raise NotComparable(result.uuid)
    return checksum


def _alterations(result: Result, actual: str | None) -> list[tuple[str, Any, Any]]:
    """Return a difference if the stored image is not the one that its record describes."""
    recorded = result.extra.get("pixels_sha256")
    if recorded is None or actual is None or recorded == actual:
        return []
    return [("pixels_sha256 of the stored image", recorded, actual)]


def pixels_sha256(png: bytes | None) -> str | None:
    """Return the checksum that docs/results-format.md defines.

    The function returns None without Pillow, and for an image that cannot be decoded.
    """
    try:
        from PIL import Image

        image = Image.open(io.BytesIO(png or b""))
        head = f"{image.mode} {image.width}x{image.height}\n".encode("ascii")
        return hashlib.sha256(head + image.tobytes()).hexdigest()
    except (ImportError, OSError, ValueError):
        return None


def _distance(first: bytes | None, second: bytes | None) -> Distance | None:
    try:
        from PIL import Image, ImageChops

        one, other = (Image.open(io.BytesIO(png or b"")).convert("RGB") for png in (first, second))
    except (ImportError, OSError, ValueError):
        return None
    if one.size != other.size:
        return None
    # The histogram has 256 bins for each of the three channels.
    counts = ImageChops.difference(one, other).histogram()
    squares = sum(count * (index % 256) ** 2 for index, count in enumerate(counts))
    largest = max((index % 256 for index, count in enumerate(counts) if count), default=0)
    psnr_db = 10 * math.log10(255**2 * sum(counts) / squares) if squares else math.inf
    return Distance(psnr_db, largest)
