"""Pictures in a request: base64 becomes bytes that were looked at, and a digest in their place.

Pillow reads the header first, and decodes only what that allows. Writes nothing.
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
MIN_SIDE_PX, MAX_SIDE_PX = 16, 8192

LARGE_BYTES = 1 << 20
AT_ONCE = 4
"""Requests larger than LARGE_BYTES that are looked at at a time: one may want some 250 MB."""

_ON_ITS_SIDE = (5, 6, 7, 8)
"""Orientations of EXIF that exchange width and height."""

_DATA_URL = re.compile(r"data:[\w.+-]{1,32}/[\w.+-]{1,32};base64,")


class UnreadableImage(ValueError):
    """What came is no picture that is taken; the text says why."""


class InputImageReader:
    """Reads the pictures of requests. Thread-safe.

    Args:
        max_pixels: of one picture; more is refused before anything is decoded.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._large = threading.BoundedSemaphore(AT_ONCE)

    @contextlib.contextmanager
    def room(self, size_bytes: int) -> Iterator[None]:
        """While a body of this size is read and looked at; a large one waits for its turn."""
        if size_bytes <= LARGE_BYTES:
            yield
            return
        with self._large:
            yield

    def request(self, body: object) -> tuple[GenerationRequest, InputFiles]:
        """The request that a client's JSON is, with digests where it has pictures.

        Raises:
            InvalidRequest: with every fault of it, those of its pictures too.
        """
        found: InputFiles = {}
        size: output_size.Size | None = None
        faults: list[dict[str, Any]] = []
        for where, holder, key in image_fields(body):
            text, seen = holder[key], None
            try:
                content, seen = self._decoded(text)
            except UnreadableImage as refusal:
                faults.append(
                    {"field": where, "message": str(refusal), "value": display_value(text)}
                )
                content = b""
            if where == "image":
                size = seen
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            found[digest] = content
            holder[key] = digest
        try:
            request = GenerationRequest.model_validate(body)
            output_size.check(request, size)
        except ValidationError as error:
            faults += field_errors(error, GenerationRequest.model_fields)
        except Unsupported as error:
            faults.append(error.error)
        if faults:
            raise InvalidRequest(faults, GenerationRequest.model_fields)
        return request, found

    def _decoded(self, text: str) -> tuple[bytes, output_size.Size]:
        """The bytes of a picture that decodes, and its size upright. Raises Unreadable."""
        prefix = _DATA_URL.match(text)
        try:
            content = binascii.a2b_base64(
                text[prefix.end() :] if prefix else text, strict_mode=True
            )
        except ValueError as error:  # binascii's, and of a string that is not ASCII
            raise UnreadableImage(f"is not base64 of a picture: {error}") from None
        if not content:
            raise UnreadableImage("is empty: base64 of a PNG, JPEG or WebP is wanted")
        return content, self._look(content)

    def _look(self, content: bytes) -> output_size.Size:
        try:
            # Reads the header only, and nothing that another format's reader would make of it.
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise UnreadableImage(f"has more than {self._max_pixels} pixels") from None
        except Exception:
            # Pillow raises whatever a broken header leads it to.
            raise UnreadableImage("is no PNG, JPEG or WebP") from None
        with image:
            self._check_size(*image.size)
            # MPO: a JPEG with more behind it (depth, brightness, a small copy), not in time.
            if image.format != "MPO" and getattr(image, "n_frames", 1) != 1:
                raise UnreadableImage("is an animation; one picture is wanted")
            try:
                image.load()
            except Exception as error:
                raise UnreadableImage(f"is a broken {image.format}: {error}") from None
            return upright_size(image)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise UnreadableImage(
                f"is {width} x {height}: more than the {self._max_pixels} pixels that are taken"
            )
        if not (min(width, height) >= MIN_SIDE_PX and max(width, height) <= MAX_SIDE_PX):
            raise UnreadableImage(
                f"is {width} x {height}: a side has {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels"
            )


def upright_size(image: Image.Image) -> output_size.Size:
    """Its size when it is turned as its EXIF says."""
    width, height = image.size
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation) in _ON_ITS_SIDE
    except Exception:
        # Pillow raises whatever broken EXIF leads it to; the picture itself is whole.
        turned = False
    return (height, width) if turned else (width, height)
