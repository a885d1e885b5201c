"""Names the files of partial images, which a worker writes and the gateway reads.

They lie beside the previews: `<writer>.<uuid>.<image>.<number>.png`, both counted from 0.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_NUMBERS = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})\.png")


class PartialImage(NamedTuple):
    """The `number`-th state of the denoising of the `image`-th image of a job, both from 0."""

    image: int
    number: int


def path(directory: Path, writer: str, uuid: str, place: PartialImage) -> Path:
    """Return the path of a partial image. `uuid` is canonical."""
    return directory / f"{writer}.{uuid}.{place.image}.{place.number}.png"


def find(directory: Path, writer: str, uuid: str) -> dict[PartialImage, Path]:
    """Return the partial images of a job that exist, in their order."""
    prefix = f"{writer}.{uuid}."
    paths: dict[PartialImage, Path] = {}
    for each in directory.glob(f"{prefix}*.png"):
        numbers = _NUMBERS.fullmatch(each.name.removeprefix(prefix))
        if numbers is not None:
            paths[PartialImage(int(numbers[1]), int(numbers[2]))] = each
    return dict(sorted(paths.items()))
