"""Converts the parameters of a generation to the JSON of a request. Files become base64.

The server checks the values, not this module.
"""

from __future__ import annotations

import base64
import io
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sde_client.errors import InvalidRequest, UnreadableFile, reason_of
from sde_client.records import Result

OLD_FIELDS = ("num_inference_steps", "guidance_scale", "width", "height")
"""The request fields of an old record, which has no `request`."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")

IMAGE_FIELDS = ("image", "mask_image")
"""The names of input images, in the request and in its nested objects."""


def body(prompt: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON of POST /image/generate, without the parameters that are None.

    An image is a path, bytes, a binary file object, a PIL image or a `data:` URL. Numbers may be
    numpy's.

    Raises:
        UnreadableFile: an input image cannot be read.
        InvalidRequest: a value cannot be sent; the message names the field.
    """
    return {"prompt": _json(prompt, "prompt"), **fields(parameters)}


def fields(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters as JSON types, without those that are None.

    It raises the errors of body().
    """
    return {name: _json(value, name) for name, value in parameters.items() if value is not None}


def _json(value: Any, path: str) -> Any:
    """Return a value as JSON types. `path` is the field's name, such as `controlnets.0.image`."""
    if value is None:
        return None
    if _is_image(path):
        return _base64(value, path)
    if isinstance(value, Mapping):
        return {str(name): _json(inner, f"{path}.{name}") for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json(inner, f"{path}.{index}") for index, inner in enumerate(value)]
    if hasattr(value, "item") and not getattr(value, "shape", ()):
        value = value.item()  # a number of numpy or torch
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest(f"{path}: must be a finite number (got {value})")
    if isinstance(value, str | bool | int | float):
        return value
    raise InvalidRequest(f"{path}: a value of the type {type(value).__name__} cannot be sent")


def _is_image(path: str) -> bool:
    return path.rpartition(".")[2] in IMAGE_FIELDS


def with_images(fields: dict[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    """Return a copy of the fields in which `convert` has replaced each input image."""

    def converted(name: str, value: Any) -> Any:
        if value is None:
            return None
        if name in IMAGE_FIELDS:
            return convert(value)
        if isinstance(value, list):
            return [converted("", item) for item in value]
        return with_images(value, convert) if isinstance(value, dict) else value

    return {name: converted(name, value) for name, value in fields.items()}


def parse_digest(image: object) -> str | None:
    """Return the 64 hexadecimal digits of `sha256:...`, or None for anything else."""
    match = _DIGEST.fullmatch(image) if isinstance(image, str) else None
    return match[1] if match else None


def to_request(result: Result) -> dict[str, Any]:
    """Return the prompt and parameters that generate this one image again, with its own seed.

    Defaults that the server filled in are included where every pipeline accepts them. These are
    the steps, the guidance, and the size of a text-to-image result of one pass. Input images stay
    the digests of the record: `sha256:...`.
    """
    record = {"negative_prompt": "", **result.extra}
    request = record.get("request")
    if isinstance(request, dict):
        request = dict(request)
    else:
        request = {name: record[name] for name in OLD_FIELDS if name in record}
    resolved = ["num_inference_steps", "guidance_scale"]
    # An empty object is a request, too: it stands for its defaults.
    if all(request.get(name) is None for name in ("image", "hires", "upscale")):
        resolved += ["width", "height"]
    request |= {name: record[name] for name in resolved if record.get(name) is not None}
    request["negative_prompt"] = record["negative_prompt"] or None
    request["seed"] = result.seed
    request.pop("num_images_per_prompt", None)
    return {"prompt": result.prompt} | {k: v for k, v in request.items() if v is not None}


def _base64(source: Any, path: str) -> str:
    if isinstance(source, str) and source.startswith("data:"):
        return source
    return base64.b64encode(_content(source, path)).decode("ascii")


def _content(source: Any, path: str) -> bytes:
    """Return the bytes of an image file. Raises UnreadableFile, InvalidRequest."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    try:
        if isinstance(source, str | os.PathLike):
            return Path(source).read_bytes()
    except (OSError, ValueError) as error:
        raise UnreadableFile(str(source), reason_of(error)) from None
    try:
        if hasattr(source, "read"):
            return _read(source, path)
        if hasattr(source, "save") and hasattr(source, "getpixel"):
            return _png(source)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{path}: the image cannot be read: {error}") from None
    raise InvalidRequest(
        f"{path}: must be a path, bytes, a binary file or a PIL image, "
        f"not a value of the type {type(source).__name__}"
    )


def _png(image: Any) -> bytes:
    """Return a PIL image as a PNG, turned as its EXIF says, in a mode that a PNG can have."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = image.convert("RGBA" if image.mode in ("PA", "La", "RGBa") else "RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _read(file: Any, path: str) -> bytes:
    """Return the whole content of a binary file, wherever its position is."""
    if hasattr(file, "getvalue"):
        content = file.getvalue()
    else:
        if hasattr(file, "seekable") and file.seekable():
            file.seek(0)
        content = file.read()
    if not isinstance(content, bytes):
        raise InvalidRequest(f"{path}: the file must be opened in binary mode")
    return content
