"""Converts the parameters of a generation to the JSON of a request. Files become base64.

The server checks the values, not this module.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sde_client.errors import UnreadableFile
from sde_client.records import Result

OLD_FIELDS = ("num_inference_steps", "guidance_scale", "width", "height")
"""The request fields of an old record, which has no `request`."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")

IMAGE_FIELDS = ("image", "mask_image")
"""The names of input images, in the request and in its nested objects."""

ImageSource = str | Path | bytes
"""A path, or a file's content."""


def body(prompt: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON of POST /image/generate, without the parameters that are None.

    Raises:
        UnreadableFile: an input image cannot be read.
    """
    fields = {name: value for name, value in parameters.items() if value is not None}
    return {"prompt": prompt, **with_images(fields, _base64)}


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


def _base64(source: ImageSource) -> str:
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        return base64.b64encode(data).decode("ascii")
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UnreadableFile(str(source), reason) from None
