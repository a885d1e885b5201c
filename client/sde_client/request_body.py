"""What a caller gives as parameters of a generation, made the request's JSON: files become base64.

Judges nothing of what is asked: the server does.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sde_client.errors import UnreadableFile
from sde_client.records import Result

FIELDS = (
    *("negative_prompt", "model", "num_inference_steps", "guidance_scale", "width", "height"),
    *("seed", "num_images_per_prompt", "scheduler", "scheduler_options", "clip_skip", "eta"),
    *("guidance_rescale", "image", "mask_image", "strength", "loras", "controlnets"),
    *("ip_adapter", "embeddings", "vae", "hires", "refiner", "upscale"),
    "step_log",
)
"""What can be asked beside the prompt; docs/http-api.md says what each means."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")

Picture = str | Path | bytes
"""A path, or a file's content."""


def body(prompt: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The JSON of POST /image/generate; what is None is not sent.

    Raises:
        UnreadableFile: a picture cannot be read.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    return {"prompt": prompt, **with_images(given, _encoded)}


def with_images(given: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """A copy in which each picture is what `change` makes of it."""

    def changed(holder: dict[str, Any], *names: str) -> dict[str, Any]:
        found = {name: change(holder[name]) for name in names if holder.get(name) is not None}
        return {**holder, **found}

    made = changed(given, "image", "mask_image")
    if made.get("controlnets"):
        made["controlnets"] = [changed(net, "image") for net in made["controlnets"]]
    if made.get("ip_adapter"):
        made["ip_adapter"] = changed(made["ip_adapter"], "image")
    return made


def parse_digest(picture: object) -> str | None:
    """The 64 digits of a picture that a record names; None when it is no such name."""
    found = _DIGEST.fullmatch(picture) if isinstance(picture, str) else None
    return found[1] if found else None


def to_request(result: Result) -> dict[str, Any]:
    """What asks for this very picture again: `prompt` and parameters, its own seed, one image.

    What the server filled in for what was not asked is asked for now, where any pipeline takes it:
    steps, guidance, and the size of a picture made from text in one pass. Pictures stay the names
    that the record has for them: `sha256:...`.
    """
    known = {"negative_prompt": "", **result.extra}
    asked = known.get("request")
    if not isinstance(asked, dict):
        # A record of before the request was kept: what made it is not told from what was asked.
        asked = {name: known[name] for name in FIELDS if name in known}
        for name in ("model", "scheduler"):
            asked.pop(name, None)
    asked = {name: value for name, value in asked.items() if name in FIELDS}
    resolved = ["num_inference_steps", "guidance_scale"]
    # An object without keys is asked for all the same: with its defaults.
    if all(asked.get(name) is None for name in ("image", "hires", "upscale")):
        resolved += ["width", "height"]
    asked |= {name: known[name] for name in resolved if known.get(name) is not None}
    asked["negative_prompt"] = known["negative_prompt"] or None
    asked["seed"] = result.seed
    asked.pop("num_images_per_prompt", None)
    given = {name: value for name, value in asked.items() if value is not None}
    return {"prompt": result.prompt, **given}


def _encoded(picture: Picture) -> str:
    if isinstance(picture, bytes):
        return base64.b64encode(picture).decode("ascii")
    try:
        return base64.b64encode(Path(picture).read_bytes()).decode("ascii")
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UnreadableFile(str(picture), reason) from None
