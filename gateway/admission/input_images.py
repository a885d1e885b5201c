"""Reads the images of a request: base64 becomes verified bytes, and a digest takes its place.

Pillow reads the header first and decodes only what the limits allow. Nothing is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from gateway.errors import InvalidRequest
from gateway.store.input_store import InputFiles
from gpu_worker.contract import image_codec, output_size
from gpu_worker.contract.image_codec import UnreadableImage
from gpu_worker.contract.request import GenerationRequest, image_fields
from gpu_worker.contract.validation_errors import Unsupported, display_value, field_errors

MIN_SIDE_PX = 16

LARGE_BYTES = 1 << 20
AT_ONCE = 4
"""The number of requests above LARGE_BYTES that are read at a time. Each may need 250 MB."""


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
                content = image_codec.from_base64(text)
                image_size = image_codec.decode(content, self._check_size).size
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
