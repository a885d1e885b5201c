"""Defines what the document says of one method of one route."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from gateway.http.params import JSON

Schema = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """A successful answer: what it is, its schema (None without a body), and its media type."""

    description: str
    schema: Schema | None = None
    content_type: str = JSON


@dataclass(frozen=True)
class Operation:
    """One method of one route. Every other status is a problem document.

    `query` maps a parameter to its schema, and `required` names those that must be sent. `body` is
    the model of the JSON body, and `options` one whose fields it has, too. `scope` is what the
    request's key needs, None without one.
    """

    summary: str
    answers: Mapping[int, Answer]
    query: Mapping[str, Schema] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    body: type[BaseModel] | None = None
    options: type[BaseModel] | None = None
    headers: tuple[str, ...] = ()
    scope: str | None = "generate"


UUID: Schema = {"type": "string", "format": "uuid"}
BOOLEAN: Schema = {"type": "string", "enum": ["true", "false"]}
OBJECT: Schema = {"type": "object"}
NO_CONTENT = Answer("It is done.")


def array(items: Schema) -> Schema:
    """Return the schema of an array."""
    return {"type": "array", "items": items}


def integer(low: int, high: int, default: int | None = None) -> Schema:
    """Return the schema of a whole number from `low` to `high`."""
    schema: Schema = {"type": "integer", "minimum": low, "maximum": high}
    return schema if default is None else schema | {"default": default}


def members(**types: str) -> Schema:
    """Return the schema of an object that has these members, by their JSON types."""
    properties = {
        name: {"type": kind.split("|") if "|" in kind else kind} for name, kind in types.items()
    }
    return {"type": "object", "properties": properties, "required": list(properties)}
