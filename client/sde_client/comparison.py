"""Two results beside each other: which facts differ, how far the pixels are, where the runs part.

Asks nobody. Pillow is needed only to say how far pixels are.
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
"""Facts of a run, not of what made it: they differ between two runs of the same."""


@dataclass(frozen=True)
class Distance:
    """Between two pictures of one size. `psnr_db` is infinite when they are the same; `largest`
    is the largest difference of one channel of one pixel, of 255."""

    psnr_db: float
    largest: int


@dataclass(frozen=True)
class Comparison:
    """`differences` are (name, first, second); `identical` says it of the pixels alone.

    `distance` is None when they are identical, of different sizes, or Pillow is not installed.
    """

    first: Result
    second: Result
    identical: bool
    differences: list[tuple[str, Any, Any]]
    distance: Distance | None = None


@dataclass(frozen=True)
class Divergence:
    """The first step at which two logs of steps differ, counted from 1, as each has it; None where
    a log has ended before."""

    step: int
    first: dict[str, Any] | None
    second: dict[str, Any] | None


def compare(first: Result, second: Result) -> Comparison:
    """Both with their pictures.

    Raises:
        NotComparable: a record says nothing of its pixels, and Pillow is not here to look at them.
    """
    one, other = _pixels(first), _pixels(second)
    found = [*_alterations(first), *differences(first, second)]
    distance = None if one == other else _distance(first.png, second.png)
    return Comparison(first, second, one == other, found, distance)


def differences(first: Result, second: Result) -> list[tuple[str, Any, Any]]:
    """Of all that made them; of nested facts the parts that differ, named by dots."""
    one, other = (_flat(_facts(result)) for result in (first, second))
    names = [*one, *(name for name in other if name not in one)]
    return [
        (name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)
    ]


def divergence(first: Result, second: Result) -> Divergence | None:
    """Where the logs of steps part; None when they do not.

    Raises:
        ValueError: one of them was made without a log.
    """
    logs = []
    for result in (first, second):
        log = result.extra.get("steps_log")
        if not isinstance(log, list):
            raise ValueError(f"{result.uuid} was made without a log of its steps (--step-log)")
        logs.append([row if isinstance(row, dict) else {} for row in log])
    one, other = logs
    for place in range(max(len(one), len(other))):
        left = one[place] if place < len(one) else None
        right = other[place] if place < len(other) else None
        if left is None or right is None or _state(left) != _state(right):
            return Divergence(place + 1, left, right)
    return None


def _state(row: dict[str, Any]) -> tuple[Any, ...]:
    return row.get("timestep"), row.get("sigma"), row.get("latents_sha256")


def _facts(result: Result) -> dict[str, Any]:
    facts = {"prompt": result.prompt, "seed": result.seed, **result.extra}
    return {name: value for name, value in facts.items() if name not in VOLATILE}


def _flat(facts: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name}.")
        else:
            found[before + name] = value
    return found


def _pixels(result: Result) -> str:
    """Of the picture as it is; of the record where nobody can look."""
    found = pixels_sha256(result.png) or result.extra.get("pixels_sha256")
    if not isinstance(found, str):
        raise NotComparable(result.uuid)
    return found


def _alterations(result: Result) -> list[tuple[str, Any, Any]]:
    """A stored picture that is not the one which its record speaks of."""
    stated, found = result.extra.get("pixels_sha256"), pixels_sha256(result.png)
    if stated is None or found is None or stated == found:
        return []
    return [("pixels_sha256 of the stored picture", stated, found)]


def pixels_sha256(png: bytes | None) -> str | None:
    """As docs/results-format.md defines it; None without Pillow or a picture that can be read."""
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
    # Three channels of 256 bins: how often each difference occurs.
    counts = ImageChops.difference(one, other).histogram()
    squares = sum(count * (place % 256) ** 2 for place, count in enumerate(counts))
    largest = max((place % 256 for place, count in enumerate(counts) if count), default=0)
    psnr_db = 10 * math.log10(255**2 * sum(counts) / squares) if squares else math.inf
    return Distance(psnr_db, largest)
