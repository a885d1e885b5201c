"""Fetches the emoji packages and renders each noun once in each style.

A sprite is a square RGBa image with its colours multiplied by its opacity. Nothing here composes.
"""

from __future__ import annotations

import functools
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recipe.images.nouns import catalogue, codepoints

SPRITE_PIXELS = 112
STYLES = ("3d", "flat")
"""The first is what a prompt means that names no style."""

_3D, _FLAT = "@lobehub/fluent-emoji-3d", "@iconify-json/fluent-emoji-flat"
PACKAGES = {_3D: "1.1.0", _FLAT: "1.2.6"}
"""npm's names and versions; both have the MIT licence."""


def fetch(folder: Path) -> Path:
    """Install the packages under the folder with npm, once; return their common folder."""
    modules = folder / "node_modules"
    if not (modules / _FLAT).exists():
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"{name}@{version}" for name, version in PACKAGES.items()]
        options = ["--no-audit", "--no-fund", "--no-save", "--ignore-scripts"]
        subprocess.run(["npm", "install", *options, "--prefix", str(folder), *names], check=True)
    return modules


@functools.cache
def _icon_set(package: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Icon names by code points, and the set itself, of one package of icons."""
    icons = json.loads((package / "icons.json").read_text(encoding="utf-8"))
    named = json.loads((package / "chars.json").read_text(encoding="utf-8"))
    return {key.lower().replace("-fe0f", ""): name for key, name in named.items()}, icons


def _svg(package: Path, emoji: str) -> Image.Image:
    """One icon of a package in the size of a sprite."""
    import resvg_py

    names, icons = _icon_set(package)
    side = icons.get("width", 16)
    body = icons["icons"][names[codepoints(emoji)]]["body"]
    text = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}">{body}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=text, width=SPRITE_PIXELS, height=SPRITE_PIXELS)
    return Image.open(io.BytesIO(bytes(png)))


@functools.cache
def _webp_files(package: Path) -> dict[str, Path]:
    files = (package / "assets").glob("*.webp")
    return {path.stem.lower().replace("-fe0f", ""): path for path in files}


def _image(modules: Path, style: str, emoji: str) -> Image.Image:
    if style == "3d":
        return Image.open(_webp_files(modules / _3D)[codepoints(emoji)])
    return _svg(modules / _FLAT, emoji)


def _trim(image: Image.Image) -> Image.Image:
    """The visible part, centred in a square sprite that it fills."""
    image = image.convert("RGBA")
    image = image.crop(image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    side = max(image.size)
    square = Image.new("RGBA", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    size = (SPRITE_PIXELS, SPRITE_PIXELS)
    return square.convert("RGBa").resize(size, Image.Resampling.LANCZOS)


def _raw(image: Image.Image) -> NDArray[np.uint8]:
    flat = np.frombuffer(image.tobytes(), dtype=np.uint8)
    return flat.reshape(image.height, image.width, 4)


def render(modules: Path) -> NDArray[np.uint8]:
    """All sprites: (styles, nouns, 112, 112, 4), colours multiplied by opacity."""
    rows = [
        np.stack([_raw(_trim(_image(modules, style, noun.emoji))) for noun in catalogue().values()])
        for style in STYLES
    ]
    return np.stack(rows)


def load(folder: Path) -> NDArray[np.uint8]:
    """The sprites, read from the folder or else fetched and rendered into it."""
    cache = folder / "sprites.npy"
    if not cache.exists():
        np.save(cache, render(fetch(folder / "packages")))
    sprites: NDArray[np.uint8] = np.load(cache)
    return sprites
