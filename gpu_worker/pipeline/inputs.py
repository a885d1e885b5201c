"""The pictures that came with a job, read from where the gateway has put them."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from PIL import Image


class MissingPicture(RuntimeError):
    """A job's picture is not there, or not what it was."""


class Inputs:
    """Of one job. `folder` holds a file for each picture, named by its sha256 in hex."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def picture(self, digest: str) -> Image.Image:
        """The picture, RGB or as its file has it.

        Raises:
            MissingPicture: the file is gone or has changed.
        """
        name = digest.removeprefix("sha256:")
        try:
            content = (self._folder / name).read_bytes()
        except OSError as error:
            raise MissingPicture(f"the picture {digest} is gone: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != name:
            raise MissingPicture(f"the picture {digest} has changed on the disk")
        image = Image.open(io.BytesIO(content))
        image.load()
        return image
