"""Puts the pixels that a mask keeps back into the generated image.

diffusers keeps them as latents only, and a VAE returns them changed. The module knows no pipelines.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

BLEND_PX = 2
"""Pixels inside the white over which the generated image blends with the sent one."""

_HALF = 127
"""The lightest grey that diffusers' mask processor takes for black (`do_binarize`)."""


def restore(generated: Image.Image, sent: Image.Image, mask: Image.Image) -> Image.Image:
    """Return the generated image with the sent pixels wherever the mask keeps them.

    Args:
        sent: the image of the request, RGB, in the generated image's size.
        mask: in the same size, L. White is painted anew.
    """
    return Image.composite(generated.convert("RGB"), sent, generated_share(mask))


def generated_share(mask: Image.Image) -> Image.Image:
    """Return what the generated image contributes to each pixel, 0 to 255, never above the mask.

    It is 0 where diffusers keeps the latents: from black to the middle grey. The rest of the grey
    scale blends, and so do the pixels of the white next to what is kept.
    """
    share = mask.point([max(0, round((v - _HALF) * 255 / (255 - _HALF))) for v in range(256)])
    layers = [share]
    for _ in range(BLEND_PX):
        layers.append(layers[-1].filter(ImageFilter.MinFilter(3)))
    total = np.sum([np.asarray(layer, dtype=np.uint16) for layer in layers], axis=0)
    return Image.fromarray((total // len(layers)).astype(np.uint8))
