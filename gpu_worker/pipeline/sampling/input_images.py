"""The pictures that came with a job, read from where the gateway has put them.

Gives them as RGB or as a mask; fits none to a size.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from PIL import Image, ImageOps

from gpu_worker.contract.validation_errors import Refusal

MAX_TEXT_CHARS = 32 << 10
"""Of a picture's own text that is carried over: two prompts of 4000 characters and a line."""


class MissingImage(Refusal):
    """A job's picture is not there, or not what it was, or cannot be read."""


class InputImages:
    """Of one job. `folder` holds a file for each picture, named by its sha256 in hex."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def picture(self, digest: str) -> Image.Image:
        """The picture upright and in RGB; what is transparent shows white.

        Raises:
            MissingPicture: the file is gone, has changed or is no picture.
        """
        return _flat(self._opened(digest), "white").convert("RGB")

    def mask(self, digest: str) -> Image.Image:
        """The picture's brightness: white is painted anew; what is transparent counts as black.

        Raises:
            MissingPicture: the file is gone, has changed or is no picture.
        """
        return _flat(self._opened(digest), "black").convert("L")

    def parameters(self, digest: str) -> str | None:
        """A1111's text in the picture, of which tools tell how it was made; None: it has none.

        Raises:
            MissingPicture: the file is gone, has changed or is no picture.
        """
        found = self._opened(digest).info.get("parameters")
        return found if isinstance(found, str) and len(found) <= MAX_TEXT_CHARS else None

    def _opened(self, digest: str) -> Image.Image:
        name = digest.removeprefix("sha256:")
        try:
            content = (self._folder / name).read_bytes()
        except OSError as error:
            raise MissingImage(f"the picture {digest} is gone: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != name:
            raise MissingImage(f"the picture {digest} has changed on the disk")
        try:
            image = Image.open(io.BytesIO(content))
            image.load()
            return ImageOps.exif_transpose(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise MissingImage(f"the picture {digest} cannot be read: {error}") from None


def _flat(image: Image.Image, ground: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, as depth maps have: Pillow would clip them
        return image.convert("I").point(lambda value: value / 256).convert("L")
    if not image.has_transparency_data:
        return image
    seen = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, ground), seen).convert("RGB")
