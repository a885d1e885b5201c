"""Images as they come with a request."""

from __future__ import annotations

import base64
import io

from PIL import Image


def picture(kind: str = "PNG", size: tuple[int, int] = (64, 64), shade: int = 99) -> bytes:
    """The bytes of a grey one."""
    made = io.BytesIO()
    Image.new("RGB", size, (shade,) * 3).save(made, format=kind)
    return made.getvalue()


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


GOOD = text(picture())
