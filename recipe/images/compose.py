"""Draws scenes from sprites: places, sizes, backgrounds and recolourings. Words are elsewhere."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recipe.images import scenes
from recipe.images.nouns import nouns
from recipe.images.sprites import STYLES

PIXELS = 96
_SIDES: dict[str | None, tuple[float, float]] = {
    None: (60.0, 68.0),
    "small": (32.0, 38.0),
    "large": (80.0, 88.0),
}
"""Smallest and largest side of a single noun in pixels, by the word for its size."""

_PLACED_SIDE = (42.0, 48.0)
_PAIR_SIDE = (41.0, 45.0)
_WAY: dict[str, tuple[int, int]] = {
    "on the left": (-1, 0),
    "on the right": (1, 0),
    "at the top": (0, -1),
    "at the bottom": (0, 1),
    "left of": (-1, 0),
    "right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}


def recolor(sprite: NDArray[np.uint8], rgb: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The sprite in shades of one colour: its lightness stays, its hue turns.

    Dark parts run to black and the lightest to white, so that outlines and eyes can be seen.
    """
    alpha = sprite[..., 3:].astype(np.float32) / 255
    colors = sprite[..., :3].astype(np.float32) / 255 / np.maximum(alpha, 1 / 255)
    light = (colors @ np.array([0.3, 0.59, 0.11], dtype=np.float32))[..., None].clip(0, 1)
    target = np.array(rgb, dtype=np.float32) / 255
    shade = np.where(
        light < 0.55, target * (0.25 + 0.75 * light / 0.55), target + (1 - target) * (light - 0.55)
    )
    toned = np.concatenate([shade * alpha, alpha], axis=-1)
    return np.asarray((toned.clip(0, 1) * 255).round(), dtype=np.uint8)


class Composer:
    """Draws any scene from one set of sprites (styles, nouns, side, side, 4)."""

    def __init__(self, sprites: NDArray[np.uint8]) -> None:
        self._sprites = sprites
        self._number = {noun: k for k, noun in enumerate(nouns())}

    def sprite(self, scene: scenes.Scene, noun: str) -> Image.Image:
        """The noun in the scene's style and colour, as PIL's "RGBa"."""
        raw = self._sprites[STYLES.index(scene.style), self._number[noun]]
        if scene.tint is not None:
            raw = recolor(raw, scenes.TINTS[scene.tint])
        return Image.frombytes("RGBa", (raw.shape[1], raw.shape[0]), raw.tobytes())

    def draw(self, scene: scenes.Scene, rng: random.Random) -> Image.Image:
        """One 96 x 96 RGB image of the scene, at a place and size that chance varies a little."""
        image = _draw_background(scene, rng)
        for noun, (x, y, side) in zip(scene.nouns, _places(scene, rng), strict=True):
            size = (round(side), round(side))
            sprite = self.sprite(scene, noun).resize(size, Image.Resampling.BICUBIC)
            corner = (round(x - side / 2), round(y - side / 2))
            _paste(image, sprite, corner)
        return image


def _paste(image: Image.Image, sprite: Image.Image, corner: tuple[int, int]) -> None:
    """Lay a sprite with multiplied colours over the image."""
    layer = np.zeros((PIXELS, PIXELS, 4), dtype=np.float32)
    left, top = max(corner[0], 0), max(corner[1], 0)
    raw = np.frombuffer(sprite.tobytes(), dtype=np.uint8).reshape(sprite.height, sprite.width, 4)
    part = raw[top - corner[1] :, left - corner[0] :][: PIXELS - top, : PIXELS - left]
    layer[top : top + part.shape[0], left : left + part.shape[1]] = part
    below = np.asarray(image, dtype=np.float32)
    mixed = layer[..., :3] + below * (1 - layer[..., 3:] / 255)
    image.paste(Image.fromarray(mixed.clip(0, 255).round().astype(np.uint8)))


def _draw_background(scene: scenes.Scene, rng: random.Random) -> Image.Image:
    """One colour, or the first above the second; each a shade off its name."""
    image = Image.new("RGB", (PIXELS, PIXELS))
    horizon = PIXELS // 2 + rng.randint(-3, 3) if len(scene.background) == 2 else PIXELS
    for top, name in zip((0, horizon), scene.background, strict=False):
        shade = tuple(round(value + rng.uniform(-5, 5)) for value in scenes.BACKGROUNDS[name])
        image.paste(shade, (0, top, PIXELS, PIXELS))
    return image


def _places(scene: scenes.Scene, rng: random.Random) -> Iterator[tuple[float, float, float]]:
    """Centre x, y and side in pixels of each noun."""
    middle = PIXELS / 2
    if scene.relation is not None:
        dx, dy = _WAY[scene.relation]
        for sign in (1, -1):
            side = rng.uniform(*_PAIR_SIDE)
            x, y = middle + 24.5 * dx * sign, middle + 24.5 * dy * sign
            across = 4.0
            yield (
                x + rng.uniform(-1, 1) * (across if dx == 0 else 1),
                y + rng.uniform(-1, 1) * (across if dy == 0 else 1),
                side,
            )
        return
    if scene.place is not None:
        dx, dy = _WAY[scene.place]
        side = rng.uniform(*_PLACED_SIDE)
        yield middle + 23 * dx + rng.uniform(-2, 2), middle + 23 * dy + rng.uniform(-2, 2), side
        return
    side = rng.uniform(*_SIDES[scene.size])
    jitter = 5.0 if scene.size == "small" else 3.0
    yield middle + rng.uniform(-jitter, jitter), middle + rng.uniform(-jitter, jitter), side
