"""Reads the images of a request: base64 becomes verified bytes, and a digest takes its place.

Pillow reads the header first and decodes only what the limits allow. Nothing is written.
"""

from __future__ import annotations

import binascii
import contextlib
import hashlib
import io
import re
import threading
from collections.abc import Iterator
from typing import Any

from PIL import ExifTags, Image
from pydantic import ValidationError

from gateway.errors import InvalidRequest
from gateway.store.input_store import InputFiles
from gpu_worker.contract import output_size
from gpu_worker.contract.request import GenerationRequest, image_fields
from gpu_worker.contract.validation_errors import Unsupported, display_value, field_errors

FORMATS = ("PNG", "JPEG", "WEBP")
MIN_SIDE_PX = 16

LARGE_BYTES = 1 << 20
AT_ONCE = 4
"""Requests above LARGE_BYTES that are read at a time: each may need some 250 MB."""

_ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height (EXIF 2.32, tag 274)."""

_DATA_URL = re.compile(r"data:[\w.+-]{1,32}/[\w.+-]{1,32};base64,")


class UnreadableImage(ValueError):
    """The bytes are not an image that the service accepts; the text says why."""


class InputImageReader:
    """Reads the images of requests. Thread-safe.

    Args:
        max_pixels: of one image; a larger one is refused before it is decoded.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._large = threading.BoundedSemaphore(AT_ONCE)

    @contextlib.contextmanager
    def room(self, size_bytes: int) -> Iterator[None]:
        """Hold room for a body of this size while it is read. A large body waits for its turn."""
        if size_bytes <= LARGE_BYTES:
            yield
            return
        with self._large:
            yield

    def request(self, body: object) -> tuple[GenerationRequest, InputFiles]:
        """Return the request in a client's JSON, with digests for its images, and the images.

        Raises:
            InvalidRequest: it names every invalid field, images included.
        """
        images: InputFiles = {}
        size: output_size.Size | None = None
        errors: list[dict[str, Any]] = []
        for where, holder, key in image_fields(body):
            text, image_size = holder[key], None
            try:
                content, image_size = self._decoded(text)
            except UnreadableImage as refusal:
                errors.append(
                    {"field": where, "message": str(refusal), "value": display_value(text)}
                )
                content = b""
            if where == "image":
                size = image_size
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            images[digest] = content
            holder[key] = digest
        try:
            request = GenerationRequest.model_validate(body)
            output_size.check(request, size)
        except ValidationError as error:
            errors += field_errors(error, GenerationRequest.model_fields)
        except Unsupported as error:
            errors.append(error.error)
        if errors:
            raise InvalidRequest(errors, GenerationRequest.model_fields)
        return request, images

    def _decoded(self, text: str) -> tuple[bytes, output_size.Size]:
        """Return an image's bytes and its upright size. Raises UnreadableImage."""
        prefix = _DATA_URL.match(text)
        try:
            content = binascii.a2b_base64(
                text[prefix.end() :] if prefix else text, strict_mode=True
            )
        except ValueError as error:  # binascii's, and of a string that is not ASCII
            raise UnreadableImage(f"must be an image in base64: {error}") from None
        if not content:
            raise UnreadableImage("is empty; it must be a PNG, JPEG or WebP in base64")
        return content, self._look(content)

    def _look(self, content: bytes) -> output_size.Size:
        try:
            # It reads the header only, and tries no other format.
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise UnreadableImage(f"has more pixels than the limit of {self._max_pixels}") from None
        except Exception:
            # Pillow raises errors of any class for a broken header.
            raise UnreadableImage("is not a PNG, JPEG or WebP") from None
        with image:
            self._check_size(*image.size)
            # MPO is a JPEG with further images behind it (depth, a small copy), not an animation.
            if image.format != "MPO" and getattr(image, "n_frames", 1) != 1:
                raise UnreadableImage("is an animation; it must be a single image")
            try:
                image.load()
            except Exception as error:
                raise UnreadableImage(f"is a damaged {image.format}: {error}") from None
            return upright_size(image)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise UnreadableImage(
                f"is {width} x {height}, which is more than the limit of {self._max_pixels} pixels"
            )
        if not (
            min(width, height) >= MIN_SIDE_PX
            and max(width, height) <= output_size.MAX_LARGE_SIDE_PX
        ):
            raise UnreadableImage(
                f"is {width} x {height}; "
                f"each side must have {MIN_SIDE_PX} to {output_size.MAX_LARGE_SIDE_PX} pixels"
            )


def upright_size(image: Image.Image) -> output_size.Size:
    """Return the size after the turn that the EXIF orientation asks for."""
    width, height = image.size
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation) in _ON_ITS_SIDE
    except Exception:
        # Pillow raises errors of any class for broken EXIF; the image itself is whole.
        turned = False
    return (height, width) if turned else (width, height)
