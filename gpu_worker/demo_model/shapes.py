"""Draws the demonstration model's pictures and words their prompts.

Knows colours, shapes, sizes, sentences and the held-out combinations; it trains and judges nothing.
"""

from __future__ import annotations

import functools
import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

PIXELS = 64
SUPERSAMPLE = 4
HELD_OUT_COUNT = 100
_HELD_OUT_SEED = 672

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "orange": (245, 140, 25),
    "yellow": (245, 222, 50),
    "green": (45, 165, 70),
    "blue": (45, 90, 220),
    "purple": (140, 60, 180),
    "black": (22, 22, 22),
    "white": (242, 242, 242),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
# Radius in pixels (smallest, largest) and how far the centre may lie off the middle, per axis.
SIZES: dict[str, tuple[float, float, float]] = {
    "small": (11.0, 13.5, 6.0),
    "large": (20.0, 23.5, 3.5),
}

# Words that say nothing about the image: the model must learn to pass over them.
FILLERS = (
    "picture of", "drawing of", "image of", "photo of", "simple", "flat", "bright", "beautiful",
    "high quality", "detailed", "clean", "sharp", "digital art", "illustration", "icon",
)  # fmt: skip
# Prompts that hold nothing drawable; they stand for whatever a user puts in a negative prompt.
JUNK = (
    "blurry", "low quality", "bad", "ugly", "deformed", "watermark", "text", "noisy", "worst",
    "jpeg artifacts", "cat", "dog", "house", "car", "mountain", "person", "tree", "hello world",
)  # fmt: skip

_FULL_ORDERS = (
    "a {size} {color} {shape} on a {bg} background",
    "on a {bg} background, a {size} {color} {shape}",
    "{bg} background with a {size} {color} {shape}",
    "{color} {shape}, {size}, {bg} background",
)
_MORE_ORDERS = (
    "{size} {color} {shape} on {bg}",
    "{size} {color} {shape}, {bg} background",
    "{bg} background, {size} {color} {shape}",
    "the {shape} is {size} and {color}, the background is {bg}",
    "a {shape}, {color} and {size}, in front of a {bg} background",
)
_NO_SIZE_ORDERS = (
    "a {color} {shape} on a {bg} background",
    "on a {bg} background, a {color} {shape}",
    "{bg} background with a {color} {shape}",
    "{color} {shape}, {bg} background",
    "{color} {shape} on {bg}",
)
_PARTIAL_ORDERS = (
    "a {color} {shape}", "a {size} {color} {shape}", "{color} {shape}", "a {shape}",
    "a {bg} background", "a {shape} on a {bg} background",
)  # fmt: skip
# The orders that the bench asks in; all of them name colour, shape and background.
BENCH_ORDERS = _FULL_ORDERS + _NO_SIZE_ORDERS[:2]


@dataclass(frozen=True)
class Combination:
    """What an image shows, in words of this module."""

    shape: str
    color: str
    size: str
    background: str


def all_combinations() -> list[Combination]:
    """Every combination whose shape colour differs from its background (672)."""
    return [
        Combination(shape, color, size, background)
        for shape in SHAPES
        for color in PALETTE
        for size in SIZES
        for background in PALETTE
        if background != color
    ]


@functools.cache
def held_out() -> frozenset[Combination]:
    """The fixed combinations that training never draws; the bench asks only for these."""
    rng = random.Random(_HELD_OUT_SEED)
    return frozenset(rng.sample(all_combinations(), HELD_OUT_COUNT))


def training_combinations() -> list[Combination]:
    """The combinations that training draws from."""
    kept_back = held_out()
    return [c for c in all_combinations() if c not in kept_back]


def _star_points() -> list[tuple[float, float]]:
    radii = (1.08, 0.45)
    steps = ((radii[k % 2], math.pi * k / 5 - math.pi / 2) for k in range(10))
    return [(r * math.cos(a), r * math.sin(a) + 0.08) for r, a in steps]


def _heart_points() -> list[tuple[float, float]]:
    points = []
    for k in range(80):
        t = 2 * math.pi * k / 80
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 16, -(y + 2.5) / 15.2))
    return points


def _cross_points() -> list[tuple[float, float]]:
    a, b = 1.0, 0.34
    return [
        (-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b),
        (b, a), (-b, a), (-b, b), (-a, b), (-a, -b), (-b, -b),
    ]  # fmt: skip


_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "circle": [(math.cos(math.pi * k / 60), math.sin(math.pi * k / 60)) for k in range(120)],
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)],
    "star": _star_points(),
    "heart": _heart_points(),
    "cross": _cross_points(),
}


def draw_mask(shape: str, x: float, y: float, radius: float) -> Image.Image:
    """The shape as a 64x64 "L" image, 255 inside; x, y and radius in pixels."""
    scale = SUPERSAMPLE
    big = Image.new("L", (PIXELS * scale, PIXELS * scale), 0)
    outline = [
        ((x + px * radius) * scale, (y + py * radius) * scale) for px, py in _OUTLINES[shape]
    ]
    ImageDraw.Draw(big).polygon(outline, fill=255)
    return big.reduce(scale)


def draw(combination: Combination, rng: random.Random) -> Image.Image:
    """One 64x64 RGB image of the combination at a random place and exact size."""
    smallest, largest, jitter = SIZES[combination.size]
    x, y = (PIXELS / 2 + rng.uniform(-jitter, jitter) for _ in range(2))
    mask = draw_mask(combination.shape, x, y, rng.uniform(smallest, largest))
    image = Image.new("RGB", (PIXELS, PIXELS), PALETTE[combination.background])
    image.paste(PALETTE[combination.color], (0, 0), mask)
    return image


def word(order: str, combination: Combination) -> str:
    """The combination in one word order, with "an" where English wants it."""
    text = order.format(
        shape=combination.shape,
        color=combination.color,
        size=combination.size,
        bg=combination.background,
    )
    return text.replace("a orange", "an orange")


def training_prompt(combination: Combination, rng: random.Random) -> str:
    """A prompt for the image: usually complete, sometimes partial, about one in ten empty."""
    draw_of = rng.random()
    if draw_of < 0.09:
        return ""
    if draw_of < 0.12:
        return ", ".join(rng.sample(JUNK, rng.randint(1, 3)))
    if draw_of < 0.54:
        text = word(rng.choice(_FULL_ORDERS), combination)
    elif draw_of < 0.70:
        text = word(rng.choice(_MORE_ORDERS), combination)
    elif draw_of < 0.92:
        text = word(rng.choice(_NO_SIZE_ORDERS), combination)
    else:
        text = word(rng.choice(_PARTIAL_ORDERS), combination)
    if rng.random() < 0.06:
        filler = rng.choice(FILLERS)
        text = f"{filler} {text}" if rng.random() < 0.5 else f"{text}, {filler.removesuffix(' of')}"
    return text + ("." if rng.random() < 0.05 else "")


def vocabulary() -> list[str]:
    """The words and marks that the tokenizer must hold as one token each."""
    joined = " ".join((*_FULL_ORDERS, *_MORE_ORDERS, *_NO_SIZE_ORDERS, *_PARTIAL_ORDERS, *FILLERS))
    for field in ("{size}", "{color}", "{shape}", "{bg}"):
        joined = joined.replace(field, " ")
    words = {w.strip(",.") for w in joined.split()} - {""}
    return sorted(words | {"an"} | set(PALETTE) | set(SHAPES) | set(SIZES))
