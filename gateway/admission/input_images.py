"""Reads the images of a request: base64 becomes verified bytes, and a digest takes its place.

Pillow reads the header first and decodes only what the limits allow. Nothing is written.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

from PIL import Image
from pydantic import ValidationError

from gateway.admission.turns import Turns
from gateway.errors import InvalidRequest
from gateway.store.input_store import InputFiles
from gpu_worker.contract import image_codec, output_size
from gpu_worker.contract.fields.request_walk import image_fields
from gpu_worker.contract.image_codec import UnreadableImage
from gpu_worker.contract.limits import RequestLimits
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.contract.validation_errors import Unsupported, display_value, field_errors

MIN_SIDE_PX = 16

LARGE_BYTES = 1 << 20

_WAITING, _PATIENCE_S = 9, 20.0
"""How many requests wait for each kind of turn, and how long. Each keeps a thread."""


class InputImageReader:
    """Reads the images of requests. Thread-safe.

    One large body is parsed at a time, and one image is decoded at a time. So the memory has a
    bound: a body of 64 MiB takes 250 MB, and a WebP of 16 million pixels takes as much.

    Args:
        max_pixels: of one image; a larger one is refused before it is decoded.
        limits: of each request.
    """

    def __init__(self, max_pixels: int, limits: RequestLimits | None = None) -> None:
        self._max_pixels = max_pixels
        self._limits = limits or RequestLimits()
        self._bodies = Turns(1, _WAITING, _PATIENCE_S)
        self._decoding = Turns(1, _WAITING, _PATIENCE_S)

    @contextlib.contextmanager
    def room(self, size_bytes: int) -> Iterator[None]:
        """Hold room for a body of this size while it is read. A large body waits for its turn.

        Raises:
            TooManyUploads: too many large bodies wait.
        """
        if size_bytes <= LARGE_BYTES:
            yield
            return
        with self._bodies.turn():
            yield

    def request(self, body: object) -> tuple[GenerationRequest, InputFiles]:
        """Return the request in a client's JSON, with digests for its images, and the images.

        Nothing is decoded before all fields and all headers of images are valid.

        Raises:
            InvalidRequest: it names every invalid field, images included.
            TooManyUploads: too many images wait until they are decoded.
        """
        images: InputFiles = {}
        places: dict[str, str] = {}
        errors: list[dict[str, Any]] = []
        for where, holder, key in image_fields(body):
            content = self._content(where, holder[key], errors)
            holder[key] = digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            images[digest] = content
            places.setdefault(digest, where)
        try:
            request = GenerationRequest.model_validate(body)
        except ValidationError as error:
            errors += field_errors(error, GenerationRequest.model_fields)
        if errors:
            raise InvalidRequest(errors, GenerationRequest.model_fields)
        sizes = {digest: self._size(places[digest], images[digest], errors) for digest in images}
        if not errors:
            self._check_limits(request, sizes.get(request.image or ""), errors)
        if errors:
            raise InvalidRequest(errors, GenerationRequest.model_fields)
        return request, images

    @contextlib.contextmanager
    def decoded(self, content: bytes) -> Iterator[Image.Image]:
        """Hold an image, upright, as image_codec.decode() returns it. It waits for its turn.

        Raises:
            UnreadableImage: it is no image that the service accepts.
            TooManyUploads: too many images wait until they are decoded.
        """
        with self._decoding.turn():
            yield image_codec.decode(content, self._check_size)

    def check_limits(self, request: GenerationRequest, size: output_size.Size | None) -> None:
        """Check the sizes of a request and the operator's limits. Raises Unsupported.

        Args:
            size: of its `image`, upright; None when there is none.
        """
        output_size.check(request, size)
        self._limits.check(request, size)

    def image(self, where: str, text: str) -> Image.Image:
        """Return an image in base64, upright and decoded, in its own mode.

        Args:
            where: the field that an error names.

        Raises:
            InvalidRequest: it is no image that the service accepts.
            TooManyUploads: too many images wait until they are decoded.
        """
        errors: list[dict[str, Any]] = []
        content = self._content(where, text, errors)
        try:
            if not errors:
                with self._decoding.turn():
                    return image_codec.decode(content, self._check_size)
        except UnreadableImage as refusal:
            errors.append({"field": where, "message": str(refusal), "value": None})
        raise InvalidRequest(errors)

    def _check_limits(
        self,
        request: GenerationRequest,
        size: output_size.Size | None,
        errors: list[dict[str, Any]],
    ) -> None:
        try:
            self.check_limits(request, size)
        except Unsupported as error:
            errors.append(error.error)

    def _content(self, where: str, text: str, errors: list[dict[str, Any]]) -> bytes:
        """Return the bytes of an image whose header is valid; else add an error."""
        try:
            content = image_codec.from_base64(text)
            image_codec.inspect(content, self._check_size)
        except UnreadableImage as refusal:
            errors.append({"field": where, "message": str(refusal), "value": display_value(text)})
            return b""
        return content

    def _size(
        self, where: str, content: bytes, errors: list[dict[str, Any]]
    ) -> output_size.Size | None:
        """Return the upright size of an image, which is decoded; else add an error."""
        if errors:
            return None
        try:
            with self._decoding.turn():
                return image_codec.decode(content, self._check_size).size
        except UnreadableImage as refusal:
            errors.append({"field": where, "message": str(refusal), "value": None})
            return None

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
