"""What an image shows, in words: scenes, which of them are held out, and their captions.

It draws nothing; `compose` does.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

from recipe.images.nouns import nouns
from recipe.images.sprites import STYLES

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "black": (25, 25, 28),
    "gray": (140, 142, 146),
    "red": (214, 48, 49),
    "orange": (250, 152, 44),
    "yellow": (250, 220, 74),
    "green": (62, 168, 82),
    "blue": (52, 104, 220),
    "purple": (134, 70, 178),
    "pink": (248, 168, 200),
}
TINTS: dict[str, tuple[int, int, int]] = {
    "red": (226, 44, 44),
    "orange": (250, 140, 30),
    "yellow": (248, 212, 50),
    "green": (46, 170, 70),
    "blue": (46, 100, 230),
    "purple": (140, 66, 190),
    "pink": (250, 120, 176),
}
RELATIONS = ("left of", "right of", "above", "below")
PLACES = ("on the left", "on the right", "at the top", "at the bottom")
SIZES = ("small", "large")

_HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Scene:
    """One image: a noun or a pair, how it is drawn, and what lies behind it."""

    nouns: tuple[str, ...]
    style: str = STYLES[0]
    background: tuple[str, ...] = ("white",)
    tint: str | None = None
    size: str | None = None
    place: str | None = None
    relation: str | None = None

    def __post_init__(self) -> None:
        if (len(self.nouns) == 2) != (self.relation is not None):
            raise ValueError(f"a pair has a relation and a single noun has none: {self}")


def _in_tenth(kind: str, first: str, second: str) -> bool:
    """Whether a combination falls into the held-out tenth, the same in every process."""
    key = f"{kind}/{first}/{second}".encode()
    return zlib.crc32(key) % 1000 < 1000 * _HELD_OUT_SHARE


def held_out(scene: Scene) -> bool:
    """Whether training never draws this scene: its pair, recolouring or noun and colour."""
    first, last = scene.nouns[0], scene.nouns[-1]
    if scene.relation is not None:
        return _in_tenth("pair", min(first, last), max(first, last))
    if scene.tint is not None:
        return _in_tenth("tint", first, scene.tint)
    if scene.background == ("white",):
        return False
    return any(_in_tenth("background", first, color) for color in scene.background)


def _random_background(rng: random.Random) -> tuple[str, ...]:
    chance = rng.random()
    if chance < 0.18:
        return ("white",)
    names = rng.sample(list(BACKGROUNDS), 2)
    return tuple(names) if chance < 0.30 else (names[0],)


def _random_single(rng: random.Random) -> Scene:
    background = _random_background(rng)
    tint = rng.choice([c for c in TINTS if c not in background]) if rng.random() < 0.22 else None
    place = rng.choice(PLACES) if rng.random() < 0.12 else None
    size = rng.choice(SIZES) if place is None and rng.random() < 0.35 else None
    return Scene((rng.choice(nouns()),), rng.choice(STYLES), background, tint, size, place)


def _random_pair(rng: random.Random) -> Scene:
    pair = tuple(rng.sample(nouns(), 2))
    background = _random_background(rng)
    relation = rng.choice(RELATIONS)
    return Scene(pair, rng.choice(STYLES), background, relation=relation)


def random_scene(
    rng: random.Random, pair_share: float = 0.28, from_held_out: bool = False
) -> Scene:
    """A scene of the training, or one that the training never sees."""
    while True:
        scene = _random_pair(rng) if rng.random() < pair_share else _random_single(rng)
        if held_out(scene) == from_held_out:
            return scene


def _article(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def subject(scene: Scene) -> str:
    """The nouns with size, colour and relation: "a small blue cat", "a dog left of a bus"."""
    words = [scene.size, scene.tint, scene.nouns[0]]
    first = _article(" ".join(word for word in words if word))
    if scene.relation is not None:
        return f"{first} {scene.relation} {_article(scene.nouns[1])}"
    return f"{first} {scene.place}" if scene.place else first


def background(scene: Scene) -> str:
    """The background's words; of two colours the first is above."""
    return f"{' and '.join(scene.background)} background"


ORDERS = (
    "{subject}, {style}, on {a_background}",
    "{subject} on {a_background}, {style}",
    "{style}, {subject} on {a_background}",
    "{subject}, {background}, {style}",
    "on {a_background}, {subject}, {style}",
)
_BARE_ORDERS = (
    "{subject} on {a_background}",
    "{subject}, {background}",
    "on {a_background}, {subject}",
)


def caption(scene: Scene, order: str = ORDERS[0]) -> str:
    """The scene in one order of words."""
    words = background(scene)
    return order.format(
        subject=subject(scene), style=scene.style, background=words, a_background=_article(words)
    )


FILLERS = (
    "a picture of", "a drawing of", "an image of", "a photo of", "an emoji of", "an icon of",
    "a cute", "beautiful", "high quality", "detailed", "simple", "bright", "digital art",
)  # fmt: skip
JUNK = (
    "blurry", "low quality", "bad", "ugly", "deformed", "watermark", "text", "noisy", "worst",
    "jpeg artifacts", "person", "lighthouse", "landscape", "hello world", "portrait",
)  # fmt: skip


def _short_caption(scene: Scene, rng: random.Random) -> str:
    """A caption that leaves out what goes without saying: the first style, a white ground."""
    white, first_style = scene.background == ("white",), scene.style == STYLES[0]
    if white:
        return subject(scene) if first_style else f"{subject(scene)}, {scene.style}"
    return caption(scene, rng.choice(_BARE_ORDERS if first_style else ORDERS))


def training_caption(scene: Scene, rng: random.Random) -> str:
    """A caption as a person may word it: complete, or shorter; a tenth are empty."""
    chance = rng.random()
    if chance < 0.10:
        return ""
    if chance < 0.12:
        return ", ".join(rng.sample(JUNK, rng.randint(1, 3)))
    text = _short_caption(scene, rng) if rng.random() < 0.5 else caption(scene, rng.choice(ORDERS))
    if rng.random() < 0.08:
        filler = rng.choice(FILLERS)
        text = f"{filler} {text}" if " of" in filler else f"{text}, {filler.removeprefix('a ')}"
    if scene.tint is None and rng.random() < 0.06:
        text = text.removeprefix("a ").removeprefix("an ")
    return text
