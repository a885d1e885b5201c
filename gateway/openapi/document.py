"""Builds the OpenAPI 3.1 document of the HTTP API."""

from __future__ import annotations

import functools
import re
from importlib import metadata
from typing import Any

from pydantic import BaseModel

from gateway import DISTRIBUTION
from gateway.http.params import JSON
from gateway.http.problems import PROBLEM_JSON
from gateway.openapi.operation import Answer, Operation, Schema, members
from gateway.openapi.operations import OPERATIONS

_REF = "#/components/schemas/{model}"
_DIGEST = "^sha256:"
_IMAGE: Schema = {
    "type": "string",
    "contentEncoding": "base64",
    "description": "A PNG, JPEG or WebP in base64.",
}
_PROBLEM: Schema = members(
    type="string", title="string", status="integer", detail="string", request_id="string"
)


@functools.cache
def document() -> dict[str, Any]:
    """Return the document as JSON values."""
    schemas: dict[str, Schema] = {"Problem": _PROBLEM}
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method.lower()] = _operation(path, operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Stable Diffusion Environment", "version": _version()},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _version() -> str:
    """Return the server's version; 0 where it runs from its source and is not installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0"


def _operation(path: str, operation: Operation, schemas: dict[str, Schema]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "parameters": [*_parameters(path, operation)],
        "responses": {
            **{str(status): _answer(each) for status, each in operation.answers.items()},
            "default": _answer(
                Answer("A problem.", {"$ref": _REF.format(model="Problem")}, PROBLEM_JSON)
            ),
        },
    }
    if operation.scope is None:
        described["security"] = []
    elif operation.scope != "generate":
        described["description"] = f"The key needs the scope {operation.scope}."
    if operation.body is not None:
        schema = _schema(operation.body, operation.options, schemas)
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    return described


def _parameters(path: str, operation: Operation) -> list[dict[str, Any]]:
    text: Schema = {"type": "string"}
    inside = [
        {"name": name, "in": "path", "required": True, "schema": text}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    query = [
        {"name": name, "in": "query", "required": name in operation.required, "schema": schema}
        for name, schema in operation.query.items()
    ]
    headers = [{"name": name, "in": "header", "schema": text} for name in operation.headers]
    return [*inside, *query, *headers]


def _answer(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.schema is not None:
        described["content"] = {answer.content_type: {"schema": answer.schema}}
    return described


def _schema(
    model: type[BaseModel], options: type[BaseModel] | None, schemas: dict[str, Schema]
) -> Schema:
    """Add a model to the schemas, as a client sends it, and return a reference to it."""
    own = model.model_json_schema(ref_template=_REF)
    if options is not None:
        own["properties"] |= options.model_json_schema()["properties"]
    for name, inner in own.pop("$defs", {}).items():
        schemas[name] = _as_sent(inner)
    schemas[model.__name__] = _as_sent(own)
    return {"$ref": _REF.format(model=model.__name__)}


def _as_sent(schema: Any) -> Any:
    """Return a schema as clients see it.

    Images are base64 where the model has their digests, and null stands for an optional member that
    is not sent.
    """
    if isinstance(schema, list):
        return [_as_sent(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if str(schema.get("pattern", "")).startswith(_DIGEST):
        return _IMAGE
    sent = {name: _as_sent(each) for name, each in schema.items()}
    if isinstance(sent.get("properties"), dict):
        required = sent.get("required", ())
        sent["properties"] = {
            name: each if name in required else _or_null(each)
            for name, each in sent["properties"].items()
        }
    return sent


def _or_null(schema: Schema) -> Schema:
    choices = schema.get("anyOf", [schema])
    null: Schema = {"type": "null"}
    return schema if null in choices else {"anyOf": [schema, null]}
