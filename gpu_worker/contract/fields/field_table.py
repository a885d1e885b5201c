"""Describes the fields of a request as JSON: GET /server/fields. All follows from the models."""

from __future__ import annotations

import functools
from typing import Any

from pydantic import BaseModel

from gpu_worker.contract.request import metadata_of

_LIMITS = {
    "minimum": "minimum",
    "maximum": "maximum",
    "exclusiveMinimum": "exclusive_minimum",
    "exclusiveMaximum": "exclusive_maximum",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "maxItems": "max_items",
}
"""JSON Schema's words (draft 2020-12) and ours."""


@functools.cache
def fields_of(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Return the description of each field of a model by its name.

    It has `type`, `required` or `default`, the limits, and `help`. An object has `fields`, and an
    array has `items`. `names` is the kind of names in models.toml that the field accepts.
    """
    schema = model.model_json_schema()
    return _fields(schema, schema.get("$defs", {}), model)


def _fields(
    schema: dict[str, Any], definitions: dict[str, Any], model: type[BaseModel]
) -> dict[str, dict[str, Any]]:
    required = schema.get("required", [])
    described = {}
    for name, member in schema["properties"].items():
        metadata = metadata_of(name, model)
        entry = _type(_plain(member, definitions), definitions, model, name)
        if metadata.image:
            entry = {"type": "image"}
        if metadata.asset is not None:
            entry["names"] = metadata.asset
        if name in required:
            entry["required"] = True
        else:
            info = model.model_fields[name]
            entry["default"] = info.get_default(call_default_factory=True)
        described[name] = entry | {"help": metadata.help}
    return described


def _plain(member: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a member without references and without the choice of null."""
    for choice in member.get("anyOf", ()):
        if choice.get("type") != "null":
            return _plain(choice, definitions)
    if "$ref" in member:
        return dict(definitions[member["$ref"].rpartition("/")[2]])
    return member


def _type(
    member: dict[str, Any], definitions: dict[str, Any], model: type[BaseModel], name: str
) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": member.get("type", "any")}
    entry |= {ours: member[theirs] for theirs, ours in _LIMITS.items() if theirs in member}
    inner = _inner_model(model.model_fields[name].annotation)
    if "properties" in member and inner is not None:
        entry["fields"] = _fields(member, definitions, inner)
    if "items" in member:
        item = _plain(member["items"], definitions)
        entry["items"] = _type(item, definitions, model, name)
    return entry


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model within `Model`, `Model | None` or `list[Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_inner_model(each) for each in getattr(annotation, "__args__", ()))
    return next((each for each in inner if each is not None), None)
