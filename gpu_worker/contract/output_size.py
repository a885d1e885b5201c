"""Computes the sizes of images of `hires` and `upscale`, and their limits.

The gateway, which knows the size of the input image, checks them, and so does the worker.
"""

from __future__ import annotations

from gpu_worker.contract.field_types import MAX_SIDE_PX, MIN_SIDE_PX, SIDE_MULTIPLE_PX
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.contract.validation_errors import Unsupported

MAX_LINE_BYTES = 68 << 20
"""The limit of a line of the result log. No writer exceeds it; readers treat more as damage."""

_LINE_BYTES_A_PIXEL = 4
"""The bytes of a pixel of noise: three in a PNG (RGB), which base64 turns into four."""

_TEXT_BYTES = 4 << 20
"""Room for the rest of a line and for the PNG's own bytes beside pixels (measured: 0.04 %)."""

MAX_LARGE_PIXELS = (MAX_LINE_BYTES - _TEXT_BYTES) // _LINE_BYTES_A_PIXEL
"""4096 x 4096: whatever such an image shows, its record stays within MAX_LINE_BYTES."""

MAX_LARGE_SIDE_PX = 8192
"""The limit of a side, also of an input image."""

Size = tuple[int, int]
"""Width and height in pixels."""


def image_to_image_size(
    request: GenerationRequest, input_size: Size, multiple: int = SIDE_MULTIPLE_PX
) -> Size:
    """Return the size of an image made from the request's `image`.

    Args:
        input_size: the upright size of `image`. A side that is not requested follows from it.
        multiple: the model's, which the gateway does not know and estimates.
    """
    width, height = input_size
    if request.width is not None and request.height is not None:
        return request.width, request.height
    if request.width is not None:
        return request.width, _side(height * request.width / width, multiple)
    if request.height is not None:
        return _side(width * request.height / height, multiple), request.height
    scale = min(1.0, MAX_SIDE_PX / max(width, height))
    scale = max(scale, MIN_SIDE_PX / min(width, height))
    return _side(width * scale, multiple), _side(height * scale, multiple)


def hires_size(first: Size, scale: float, multiple: int = SIDE_MULTIPLE_PX) -> Size:
    """Return the size of the second pass: multiples, at least one more than the first pass has."""
    width, height = (
        max(round(side * scale / multiple) * multiple, side + multiple) for side in first
    )
    return width, height


def upscaled_size(input_size: Size, scale: float, field: str = "upscale.scale") -> Size:
    """Return the size of an upscaled image.

    Args:
        input_size: of the image that is upscaled.
        field: the name of the scale in the request.

    Raises:
        Unsupported: the size exceeds the limits.
    """
    size = round(input_size[0] * scale), round(input_size[1] * scale)
    return _check_bounds(field, scale, size)


def check(request: GenerationRequest, input_size: Size | None) -> None:
    """Check the sizes of a request's images, as far as they are known.

    Args:
        input_size: of its `image`, upright; None when there is none.

    Raises:
        Unsupported: a size exceeds the limits.
    """
    if request.upscale is not None:
        if input_size is not None:
            upscaled_size(input_size, request.upscale.scale)
    elif request.hires is not None and (first := _first_pass_size(request, input_size)) is not None:
        check_hires(first, request.hires.scale)


def check_hires(first: Size, scale: float, multiple: int = SIDE_MULTIPLE_PX) -> None:
    """Check the size of a second pass over a first one of this size. Raises Unsupported."""
    _check_bounds("hires.scale", scale, hires_size(first, scale, multiple))


def _first_pass_size(request: GenerationRequest, input_size: Size | None) -> Size | None:
    """Return the size of the first pass; None where only the model knows it."""
    if input_size is not None:
        return image_to_image_size(request, input_size)
    if request.width is None or request.height is None:
        return None
    return request.width, request.height


def _check_bounds(field: str, scale: float, size: Size) -> Size:
    if max(size) > MAX_LARGE_SIDE_PX or size[0] * size[1] > MAX_LARGE_PIXELS:
        raise Unsupported(
            field,
            scale,
            f"makes an image of {size[0]} x {size[1]}; the limits are {MAX_LARGE_SIDE_PX} pixels a "
            f"side and {MAX_LARGE_PIXELS} in all",
        )
    return size


def _side(px: float, multiple: int) -> int:
    least = -(-MIN_SIDE_PX // multiple) * multiple
    return min(max(int(px) // multiple * multiple, least), MAX_SIDE_PX // multiple * multiple)
