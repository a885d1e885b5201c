"""Resizes and masks input images as A1111 does before it generates (`modules/images.py`).

The service itself keeps the pixels that a mask leaves black, so no overlay is made of them here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageFilter, ImageOps

Size = tuple[int, int]
Box = tuple[int, int, int, int]

JUST_RESIZE, CROP_AND_RESIZE, RESIZE_AND_FILL, LATENT_UPSCALE = range(4)
FILL, ORIGINAL, LATENT_NOISE, LATENT_NOTHING = range(4)

HALF = 127
"""The lightest grey of a mask that keeps the pixel."""

_LANCZOS = Image.Resampling.LANCZOS

_FILL_BLURS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))
"""Radius and repetitions, from A1111's `masking.fill`."""


class Inpainting(NamedTuple):
    """How a masked image is prepared.

    `blur` is the radius of the mask's blur in pixels. `fill` is what stands below the white.
    `padding_px` surrounds the white in the part that is painted alone; None: the whole image is.
    """

    blur: Size = (4, 4)
    is_inverted: bool = False
    fill: int = FILL
    padding_px: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Prepared:
    """The images of a request, in its size.

    `box` is the part of the sent image that they show, None if it is all of it. Then `original` is
    the sent image, and `share` what the generated one contributes to each of its pixels.
    """

    image: Image.Image
    mask: Image.Image | None = None
    box: Box | None = None
    original: Image.Image | None = None
    share: Image.Image | None = None


def flatten(image: Image.Image) -> Image.Image:
    """Return the image in RGB, with transparent pixels on white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def binary_mask(image: Image.Image) -> Image.Image:
    """Return a mask in mode L: the alpha where it says something, else the brightness."""
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            return alpha.point([255 if value > 128 else 0 for value in range(256)])
    return image.convert("L")


def resize(image: Image.Image, size: Size, mode: int) -> Image.Image:
    """Return the image in a size, as `resize_image` does. Another mode than 1 and 2 stretches."""
    if image.size == size:
        return image
    if mode not in (CROP_AND_RESIZE, RESIZE_AND_FILL):
        return image.resize(size, _LANCZOS)
    width, height = size
    scale = min(width / image.width, height / image.height)
    if mode == CROP_AND_RESIZE:
        # The part is cut before it is resized, so that a long strip needs no large image.
        scale = max(width / image.width, height / image.height)
        left = max(0.0, (image.width - width / scale) / 2)
        top = max(0.0, (image.height - height / scale) / 2)
        box = (left, top, image.width - left, image.height - top)
        return image.resize(size, _LANCZOS, box=box)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    resized = image.resize(inner, _LANCZOS)
    canvas = Image.new(image.mode, size)
    left_px, top_px = (width - inner[0]) // 2, (height - inner[1]) // 2
    _stretch_edges(canvas, resized, left_px, top_px)
    canvas.paste(resized, (left_px, top_px))
    return canvas


def _stretch_edges(canvas: Image.Image, resized: Image.Image, left: int, top: int) -> None:
    """Fill what the image leaves free with its outermost rows or columns."""
    width, height = canvas.size
    if top > 0:
        first, last = (0, 0, width, 1), (0, resized.height - 1, width, resized.height)
        canvas.paste(resized.resize((width, top), box=first), (0, 0))
        below = height - top - resized.height
        if below > 0:
            canvas.paste(resized.resize((width, below), box=last), (0, top + resized.height))
    elif left > 0:
        first, last = (0, 0, 1, height), (resized.width - 1, 0, resized.width, height)
        canvas.paste(resized.resize((left, height), box=first), (0, 0))
        beyond = width - left - resized.width
        if beyond > 0:
            canvas.paste(resized.resize((beyond, height), box=last), (left + resized.width, 0))


def prepare(
    image: Image.Image, mask: Image.Image | None, size: Size, mode: int, inpainting: Inpainting
) -> Prepared:
    """Return the images of a request.

    Args:
        image: upright, in RGB.
        mask: in mode L, in any size; white is painted. None paints all of the image.
        size: of the generated image.
        mode: a resize mode of A1111, 0 to 3.
    """
    if mask is None:
        return Prepared(resize(image, size, mode))
    mask = soft_mask(mask, inpainting)
    box = None
    if inpainting.padding_px is not None:
        mask = mask if mask.size == image.size else resize(mask, image.size, JUST_RESIZE)
        box = _crop_box(mask, inpainting.padding_px, size)
    if box is None:
        sent, mask = resize(image, size, mode), resize(mask, size, mode)
        return Prepared(fill(sent, mask, inpainting), mask)
    share = mask.point([max(0, round((v - HALF) * 255 / (255 - HALF))) for v in range(256)])
    sent = resize(image.crop(box), size, RESIZE_AND_FILL)
    part = resize(mask.crop(box), size, RESIZE_AND_FILL)
    return Prepared(fill(sent, part, inpainting), part, box, image, share)


def soft_mask(mask: Image.Image, inpainting: Inpainting) -> Image.Image:
    """Return the mask inverted and blurred as requested."""
    if inpainting.is_inverted:
        mask = ImageOps.invert(mask)
    across, down = (min(max(0, radius), 64) for radius in inpainting.blur)
    return mask.filter(ImageFilter.GaussianBlur((across, down))) if across or down else mask


def _crop_box(mask: Image.Image, padding_px: int, size: Size) -> Box | None:
    """Return the part around the white in the form of `size` (`expand_crop_region`).

    None stands for the whole image, also where nothing is white.
    """
    white = mask.getbbox()
    if white is None:
        return None
    padding_px = max(0, padding_px)
    x1, y1 = max(0, white[0] - padding_px), max(0, white[1] - padding_px)
    x2, y2 = min(mask.width, white[2] + padding_px), min(mask.height, white[3] + padding_px)
    ratio = size[0] / size[1]
    if (x2 - x1) / (y2 - y1) > ratio:
        y1, y2 = _widen(y1, y2, int((x2 - x1) / ratio), mask.height)
    else:
        x1, x2 = _widen(x1, x2, int((y2 - y1) * ratio), mask.width)
    box = (x1, y1, x2, y2)
    return None if box == (0, 0, *mask.size) else box


def _widen(low: int, high: int, length: int, limit: int) -> tuple[int, int]:
    """Return an interval of this length around another, within 0 and the limit."""
    length = min(max(length, high - low), limit)
    low = min(max(0, low - (length - (high - low)) // 2), limit - length)
    return low, low + length


def fill(image: Image.Image, mask: Image.Image, inpainting: Inpainting) -> Image.Image:
    """Return the image with other pixels below the white. What the mask keeps stays exactly."""
    if inpainting.fill == ORIGINAL:
        return image
    hard = mask.point([255 if value > HALF else 0 for value in range(256)])
    if inpainting.fill == LATENT_NOISE:
        noise = random.Random(inpainting.seed).randbytes(image.width * image.height * 3)
        below = Image.frombytes("RGB", image.size, noise)
    elif inpainting.fill == LATENT_NOTHING:
        below = Image.new("RGB", image.size, (HALF, HALF, HALF))
    else:
        below = _surroundings(image, hard)
    return Image.composite(below, image, hard)


def _surroundings(image: Image.Image, hard: Image.Image) -> Image.Image:
    """Return the image with the colours around the white spread over it."""
    remaining = Image.new("RGBa", image.size)
    remaining.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(hard))
    spread = Image.new("RGBA", image.size)
    for radius, repetitions in _FILL_BLURS:
        blurred = remaining.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(repetitions):
            spread.alpha_composite(blurred)
    return spread.convert("RGB")


def paste_back(
    generated: Image.Image, original: Image.Image, share: Image.Image, box: Box
) -> Image.Image:
    """Return the sent image with the generated part in its place."""
    part = generated.convert("RGB").resize((box[2] - box[0], box[3] - box[1]), _LANCZOS)
    whole = original.copy()
    whole.paste(part, box[:2])
    return Image.composite(whole, original, share)
