"""Turns OpenAI's masks into ours: fully transparent pixels are painted again, and so is white."""

from __future__ import annotations

import io
from typing import Any

from gateway.admission.input_images import InputImageReader
from gateway.errors import InvalidRequest
from gpu_worker.contract.image_codec import UnreadableImage

_WHITE_WHERE_TRANSPARENT = [255] + [0] * 255
"""By alpha. A pixel that is transparent in part stays."""


def convert(reader: InputImageReader, content: bytes) -> bytes:
    """Return our mask for a mask of a request, as a PNG.

    Raises:
        InvalidRequest: it is no image, or nothing of it is transparent.
        TooManyUploads: too many images wait until they are decoded.
    """
    try:
        mask = _own_mask(reader, content)
    except UnreadableImage as refusal:
        raise _invalid(str(refusal)) from None
    if mask is None:
        raise _invalid("has no fully transparent pixel, and those are painted again")
    return mask


def of_image(reader: InputImageReader, content: bytes) -> bytes | None:
    """Return our mask of an image without another mask; None if nothing of it is transparent.

    An image that cannot be read has none. Its own check reports it.

    Raises:
        TooManyUploads: too many images wait until they are decoded.
    """
    try:
        return _own_mask(reader, content)
    except UnreadableImage:
        return None


def _own_mask(reader: InputImageReader, content: bytes) -> bytes | None:
    with reader.decoded(content) as image:
        if not image.has_transparency_data:
            return None
        alpha = image.convert("RGBA").getchannel("A")
    lowest: Any = alpha.getextrema()[0]
    if lowest > 0:
        return None
    file = io.BytesIO()
    alpha.point(_WHITE_WHERE_TRANSPARENT).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest([{"field": "mask", "message": message, "value": None}])
