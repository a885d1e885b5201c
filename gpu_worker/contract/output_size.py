"""How large the pictures of `hires` and `upscale` become, and how large they may. A leaf.

Checked in the gateway, where the size of the picture that came is known, and in the worker.
"""

from __future__ import annotations

from gpu_worker.contract.field_types import MAX_SIDE_PX, MIN_SIDE_PX, SIDE_MULTIPLE_PX
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.contract.validation_errors import Unsupported

MAX_LINE_BYTES = 68 << 20
"""Of a line of the result log: no writer writes a longer one, and readers take one for damage."""

_LINE_BYTES_A_PIXEL = 4
"""Of noise: three bytes in a PNG (RGB), which base64 makes four."""

_TEXT_BYTES = 4 << 20
"""For what else a line holds, and for the PNG's own bytes beside the pixels (measured: 0.04 %)."""

MAX_LARGE_PIXELS = (MAX_LINE_BYTES - _TEXT_BYTES) // _LINE_BYTES_A_PIXEL
"""4096 x 4096: whatever such a picture shows, its record is a line that readers take."""

MAX_LARGE_SIDE_PX = 8192
"""As of an image that comes with a request (gateway/admission/input_images.py)."""

Size = tuple[int, int]
"""Width and height in pixels."""


def image_to_image_size(
    request: GenerationRequest, given: Size, multiple: int = SIDE_MULTIPLE_PX
) -> Size:
    """Of a picture drawn over the request's `image`, whose size upright is `given`.

    One side asked for: the other follows. None: the picture's own, scaled into the limits.
    `multiple` is the model's, which the gateway does not know: a little more or less there.
    """
    width, height = given
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
    """Of `hires`: multiples of 8 or more, at least one more than the first pass has."""
    width, height = (
        max(round(side * scale / multiple) * multiple, side + multiple) for side in first
    )
    return width, height


def upscaled_size(given: Size, scale: float, field: str = "upscale.scale") -> Size:
    """Of `upscale`.

    Args:
        given: of the picture that is made larger.
        field: what the scale is called by who asked.

    Raises:
        Unsupported: it is not made.
    """
    size = round(given[0] * scale), round(given[1] * scale)
    return _check_bounds(field, scale, size)


def check(request: GenerationRequest, given: Size | None) -> None:
    """Whether the pictures of a request are made, as far as their size is known.

    Args:
        given: of its `image`, upright; None when there is none.

    Raises:
        Unsupported: they are not.
    """
    if request.upscale is not None:
        if given is not None:
            upscaled_size(given, request.upscale.scale)
    elif request.hires is not None and (first := _first_pass_size(request, given)) is not None:
        check_hires(first, request.hires.scale)


def check_hires(first: Size, scale: float, multiple: int = SIDE_MULTIPLE_PX) -> None:
    """The same of a second pass over a first one of this size. Raises Unsupported."""
    _check_bounds("hires.scale", scale, hires_size(first, scale, multiple))


def _first_pass_size(request: GenerationRequest, given: Size | None) -> Size | None:
    """None where only the model knows it."""
    if given is not None:
        return image_to_image_size(request, given)
    if request.width is None or request.height is None:
        return None
    return request.width, request.height


def _check_bounds(field: str, scale: float, size: Size) -> Size:
    if max(size) > MAX_LARGE_SIDE_PX or size[0] * size[1] > MAX_LARGE_PIXELS:
        raise Unsupported(
            field,
            scale,
            f"makes a picture of {size[0]} x {size[1]}: at most {MAX_LARGE_SIDE_PX} pixels a side "
            f"and {MAX_LARGE_PIXELS} in all are made",
        )
    return size


def _side(px: float, multiple: int) -> int:
    least = -(-MIN_SIDE_PX // multiple) * multiple
    return min(max(int(px) // multiple * multiple, least), MAX_SIDE_PX // multiple * multiple)
