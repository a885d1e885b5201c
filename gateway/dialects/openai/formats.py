"""Converts a stored PNG to the format that a client asks for."""

from __future__ import annotations

import binascii
import io

from PIL import Image

FORMATS = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
"""The content type of each format. The order is part of every signed URL."""


def convert(png: bytes, name: str, quality: int) -> bytes:
    """Return an image in a format of FORMATS.

    Args:
        quality: 0 to 100, of JPEG and WebP.
    """
    if name == "png":
        return png
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        file = io.BytesIO()
        image.convert("RGB").save(file, name.upper(), quality=quality)
        return file.getvalue()


def convert_base64(text: bytes, name: str, quality: int) -> bytes:
    """Return the base64 of a stored PNG in another format, also in base64."""
    if name == "png":
        return text
    content = convert(binascii.a2b_base64(text), name, quality)
    return binascii.b2a_base64(content, newline=False)
