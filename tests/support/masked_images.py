"""What a masked image must be, worked out apart from the service, pixel by pixel."""

from __future__ import annotations

import numpy as np
from PIL import Image

BLEND_PX = 2


def with_sent_pixels(generated: Image.Image, sent: Image.Image, mask: Image.Image) -> Image.Image:
    """diffusers' image, the sent pixels where the mask is black, and a blend inside the white.

    A pixel of the white counts by how many squares of 1, 3 and 5 px around it are white all over.
    """
    grey = np.asarray(mask.convert("L")).astype(float)
    share = np.maximum(np.round((grey - 127) * 255 / 128), 0)
    around = np.pad(share, BLEND_PX, mode="edge")
    height, width = share.shape
    total = share.copy()
    for reach in range(1, BLEND_PX + 1):
        offsets = range(BLEND_PX - reach, BLEND_PX + reach + 1)
        total += np.min(
            [around[y : y + height, x : x + width] for y in offsets for x in offsets], 0
        )
    part = (total // (BLEND_PX + 1))[..., None] / 255
    one, other = (np.asarray(each.convert("RGB")).astype(float) for each in (generated, sent))
    return Image.fromarray(np.floor(one * part + other * (1 - part) + 0.5).astype(np.uint8))


def largest_change(
    image: Image.Image, sent: Image.Image, mask: Image.Image, *, where: str = "black"
) -> int:
    """Of one channel of one pixel, between two images, where the mask is black, or white."""
    grey = np.asarray(mask.convert("L"))
    one, other = (np.asarray(each.convert("RGB")).astype(int) for each in (image, sent))
    change = np.abs(one - other).max(-1)
    return int(change[grey == 0 if where == "black" else grey == 255].max())
