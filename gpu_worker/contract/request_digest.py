"""Computes the digest of a request, by which a repeated Idempotency-Key is checked.

A field with its default value does not count. So a field that a later version adds changes no
digest. The digests of earlier versions counted every field that they had; they stay valid.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pydantic_core

from gpu_worker.contract.request import GenerationRequest

_FIRST = {
    **dict.fromkeys(("prompt", "negative_prompt")),
    "num_inference_steps": 50,
    "guidance_scale": 7.5,
    **dict.fromkeys(("width", "height", "seed")),
}
"""The fields of protocol 2 in their order, with the defaults that were not null."""

_CALL = (
    *("prompt", "negative_prompt", "model", "num_inference_steps", "guidance_scale"),
    *("width", "height", "seed", "num_images_per_prompt", "scheduler", "scheduler_options"),
    *("clip_skip", "eta", "guidance_rescale", "image", "mask_image", "strength", "loras"),
    *("controlnets", "ip_adapter", "embeddings", "vae", "hires"),
)

_SCHEMAS: tuple[Mapping[str, Any], ...] = (
    _FIRST,
    *(
        dict.fromkeys((*_CALL, *later, "step_log"))
        for later in ((), ("upscale",), ("refiner", "upscale"))
    ),
)
"""The fields of a request in each earlier version. This never changes."""

_MEMBERS = {
    "loras": ("name", "weight"),
    "controlnets": ("name", "image", "conditioning_scale", "guidance_start", "guidance_end"),
    "ip_adapter": ("name", "image", "scale"),
    "hires": ("scale", "upscaler", "strength", "num_inference_steps"),
    "refiner": ("name", "switch_at"),
    "upscale": ("scale", "upscaler"),
}
"""The members of the fields that are objects, or lists of them, in those versions."""


def digest(content: bytes) -> str:
    """Return the first 32 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(content).hexdigest()[:32]


def digest_of(request: GenerationRequest) -> str:
    """Return the digest of the fields that differ from their defaults."""
    fields = request.model_dump(mode="json", exclude_defaults=True)
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return digest(text.encode())


def valid_digests(request: GenerationRequest) -> set[str]:
    """Return the digest of this version and those that earlier ones computed of this request."""
    return {digest_of(request), *_earlier(request)}


def _earlier(request: GenerationRequest) -> Iterator[str]:
    fields = request.model_dump(mode="json")
    differing = request.model_dump(mode="json", exclude_defaults=True)
    if not all(_has_members(name, value) for name, value in differing.items()):
        return
    for schema in _SCHEMAS:
        if differing.keys() <= schema.keys():
            content = {name: _member(name, fields[name], schema[name]) for name in schema}
            yield digest(pydantic_core.to_json(content))


def _has_members(name: str, value: Any) -> bool:
    """Return whether a value has only members that the earlier versions had."""
    values = value if isinstance(value, list) else [value]
    members = _MEMBERS.get(name)
    return members is None or all(each.keys() <= set(members) for each in values)


def _member(name: str, value: Any, default: Any) -> Any:
    members = _MEMBERS.get(name)
    if value is None or members is None:
        return default if value is None else value
    if isinstance(value, list):
        return [{member: each[member] for member in members} for each in value]
    return {member: value[member] for member in members}
