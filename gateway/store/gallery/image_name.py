"""Defines the name of an image, `UUID-N`: its job and its number from 1."""

from __future__ import annotations

import re
import uuid as uuids
from typing import NamedTuple

MAX_NUMBER = 9999

_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}"
_NAME = re.compile(rf"({_UUID})(?:-([1-9][0-9]{{0,3}}))?")


class ImageName(NamedTuple):
    """An image of a job. `image_index` counts from 0, and the number in its name from 1."""

    uuid: str
    image_index: int

    def __str__(self) -> str:
        return f"{self.uuid}-{self.image_index + 1}"


def parse(text: str) -> ImageName | None:
    """Return the image of `UUID` (its job's first) or `UUID-N`; None for anything else."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    return ImageName(str(uuids.UUID(match[1])), int(match[2] or 1) - 1)
