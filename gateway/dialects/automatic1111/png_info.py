"""POST /sdapi/v1/png-info: the texts in an image that somebody has generated."""

from __future__ import annotations

import io

import falcon
import orjson
from PIL import Image

from gateway.dialects.automatic1111.door import DoorResource
from gateway.dialects.automatic1111.translation import infotext
from gateway.dialects.automatic1111.translation.request_models import PngInfo, parse
from gateway.errors import InvalidRequest
from gateway.http.json_body import json_body
from gpu_worker.contract import image_codec
from gpu_worker.contract.image_codec import UnreadableImage
from gpu_worker.contract.output_size import MAX_LARGE_SIDE_PX

MAX_TEXT_CHARS = 64 << 10

PARAMETERS = "parameters"

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
"""EXIF 2.32, sections 4.6.3 and 4.6.5."""

_UNICODE = b"UNICODE\0"


class PngInfoResource(DoorResource):
    """Reads PNG, JPEG and WebP. No pixel is decoded."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer `{"info", "items", "parameters"}`."""
        with self._door.services.image_reader.room(req.content_length or 0):
            body = parse(PngInfo, json_body(req, self._door.max_body_bytes))
            try:
                texts = texts_of(image_codec.from_base64(body.image))
            except UnreadableImage as error:
                refusal = {"field": "image", "message": str(error), "value": None}
                raise InvalidRequest([refusal]) from None
        text = texts.pop(PARAMETERS, "")
        resp.data = orjson.dumps(
            {
                "info": text,
                "items": texts,
                "parameters": infotext.parameters(text) if text else {},
            }
        )


def texts_of(content: bytes) -> dict[str, str]:
    """Return the texts of an image by their keys. Raises UnreadableImage."""
    image_codec.inspect(content, _check_size)
    texts: dict[str, str] = {}
    try:
        with Image.open(io.BytesIO(content), formats=image_codec.FORMATS) as image:
            texts = {
                str(key): value[:MAX_TEXT_CHARS]
                for key, value in image.info.items()
                if isinstance(value, str)
            }
            comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    except Exception:  # Pillow raises errors of any class for broken EXIF
        return texts
    text = _comment(comment) if isinstance(comment, bytes) else comment
    if isinstance(text, str) and text:
        texts.setdefault(PARAMETERS, text[:MAX_TEXT_CHARS])
    return texts


def _comment(content: bytes) -> str:
    """Return an EXIF comment, in A1111's form `UNICODE` and UTF-16, or as ASCII."""
    if content.startswith(_UNICODE):
        return content[len(_UNICODE) :].decode("utf-16-be", "replace")
    return content.removeprefix(b"ASCII\0\0\0").decode("utf-8", "replace").strip("\0")


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_LARGE_SIDE_PX:
        raise UnreadableImage(
            f"is {width} x {height}; a side must have at most {MAX_LARGE_SIDE_PX} pixels"
        )
