"""Reads the multipart form of an edit or a variation: its texts as fields, its files as bytes.

File names and content types say nothing: clients send `blob` and application/octet-stream.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import falcon
from falcon.media.multipart import BodyPart, MultipartFormHandler

from gateway.errors import InvalidRequest
from gateway.http.json_body import too_large
from gpu_worker.contract.validation_errors import display_value, field_name

MULTIPART = "multipart/form-data"

MAX_PARTS = 64

_FILE = re.compile(r"(image|mask)(?:\[[0-9]*\])?")
"""`image`, `image[]` and `image[0]`: clients number their files in each of these ways."""

_LORA = re.compile(r"loras\[[0-9]*\]\[(name|weight)\]")
"""A member of a list of objects, as openai-python writes it into a form."""


@dataclass
class Form:
    """The texts of a form by their names, and the bytes of its images and masks, in order."""

    fields: dict[str, Any] = field(default_factory=dict)
    images: list[bytes] = field(default_factory=list)
    masks: list[bytes] = field(default_factory=list)


def read(req: falcon.Request, limit_bytes: int) -> Form:
    """Return the form of a request.

    Raises:
        falcon.HTTPError: 415, 413, or 400 for a form that is broken.
        InvalidRequest: a text is not UTF-8, or is sent twice.
    """
    media_type = falcon.parse_header(req.content_type or "")[0].lower()
    if media_type != MULTIPART:
        raise falcon.HTTPUnsupportedMediaType(
            title="Unsupported media type",
            description=f"Content-Type must be {MULTIPART}: it is "
            + (display_value(req.content_type) if req.content_type else "missing"),
        )
    if (req.content_length or 0) > limit_bytes:
        raise too_large(f"the body is larger than the limit of {limit_bytes} bytes")
    handler = MultipartFormHandler()
    handler.parse_options.max_body_part_buffer_size = limit_bytes
    handler.parse_options.max_body_part_count = MAX_PARTS
    form = Form()
    for part in handler.deserialize(req.bounded_stream, req.content_type, req.content_length):
        _add(form, part)
    return form


def _add(form: Form, part: BodyPart) -> None:
    name, content = str(part.name or ""), part.get_data()
    file = _FILE.fullmatch(name)
    if file is not None:
        if content or part.filename:  # a page's form sends an empty part for no file
            (form.images if file[1] == "image" else form.masks).append(content)
        return
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise _invalid(name, "must be text in UTF-8", None) from None
    lora = _LORA.fullmatch(name)
    if lora is not None:
        _add_lora(form.fields, lora[1], text)
    elif name in form.fields:
        raise _invalid(name, "is sent more than once", text)
    else:
        form.fields[name] = text


def _add_lora(fields: dict[str, Any], member: str, text: str) -> None:
    loras = fields.setdefault("loras", [])
    if not isinstance(loras, list):
        raise _invalid("loras", "is sent more than once", text)
    if not loras or member in loras[-1]:
        loras.append({})
    loras[-1][member] = text


def _invalid(name: str, message: str, value: object) -> InvalidRequest:
    error = {"field": field_name([name]), "message": message, "value": None}
    if value is not None:
        error["value"] = display_value(value)
    return InvalidRequest([error])
