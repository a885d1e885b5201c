"""Reads a job's input images from the folder where the gateway stored them.

It returns them as RGB or as a mask, and does not resize them.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from PIL import Image, ImageCms

from gpu_worker.contract import image_codec
from gpu_worker.contract.image_codec import UnreadableImage
from gpu_worker.contract.validation_errors import Refusal
from gpu_worker.store import durable

MAX_TEXT_CHARS = 32 << 10
"""Limit of an image's text that is copied: two prompts of 4000 characters and a line."""


class MissingImage(Refusal):
    """An input image of a job is missing, has changed or cannot be read."""


class InputImages:
    """The input images of one job. `folder` has a file for each, named by its SHA-256 in hex."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def image(self, digest: str) -> Image.Image:
        """Return the image upright and in RGB, with transparent pixels on white.

        Raises:
            MissingImage: the file is missing, has changed or is not an image.
        """
        return _flatten(_in_srgb(self._open(digest)), "white").convert("RGB")

    def mask(self, digest: str) -> Image.Image:
        """Return the image's brightness, where white is painted; transparent pixels are black.

        Raises:
            MissingImage: the file is missing, has changed or is not an image.
        """
        return _flatten(self._open(digest), "black").convert("L")

    def parameters(self, digest: str) -> str | None:
        """Return the image's A1111 text, from which tools read how it was made, or None.

        Raises:
            MissingImage: the file is missing, has changed or is not an image.
        """
        text = self._open(digest).info.get("parameters")
        return text if isinstance(text, str) and len(text) <= MAX_TEXT_CHARS else None

    def _open(self, digest: str) -> Image.Image:
        name = digest.removeprefix("sha256:")
        try:
            durable.refuse_link(self._folder)
            content = durable.read_plain(self._folder / name)
        except OSError as error:
            raise MissingImage(f"the image {digest} is missing: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != name:
            raise MissingImage(f"the image {digest} has changed on the disk")
        try:
            return image_codec.decode(content)
        except UnreadableImage as error:
            raise MissingImage(f"the image {digest} cannot be read: it {error}") from None


def _in_srgb(image: Image.Image) -> Image.Image:
    """Return the image in sRGB, which models expect, if its profile names another colour space."""
    profile = image.info.get("icc_profile")
    if profile and image.mode == "P":
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if ImageCms.getProfileDescription(own).casefold().startswith("srgb"):
            return image
        srgb = ImageCms.createProfile("sRGB")
        colors = image.convert("RGB") if image.mode == "RGBA" else image
        converted = ImageCms.profileToProfile(colors, own, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):  # a damaged profile has no effect
        return image
    if converted is not None and image.mode == "RGBA":
        converted.putalpha(image.getchannel("A"))
    return image if converted is None else converted


def _flatten(image: Image.Image, background: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, as in depth maps, which Pillow would clip
        return image.convert("I").point(lambda value: value / 256).convert("L")
    if not image.has_transparency_data:
        return image
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba).convert("RGB")
