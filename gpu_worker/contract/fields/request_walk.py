"""Walks through a request and finds the names of models.toml and the images in it. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from gpu_worker.contract.field_types import MAX_LISTED
from gpu_worker.contract.request import GenerationRequest, metadata_of


def assets_of(request: BaseModel, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield every name of models.toml in a request: its kind, its field's path, the name."""
    for field in type(request).model_fields:
        value, kind = getattr(request, field), metadata_of(field, type(request)).asset
        values = enumerate(value) if isinstance(value, list) else [("", value)]
        for key, each in values:
            where = f"{path}{field}" + (f".{key}" if isinstance(value, list) else "")
            if isinstance(each, BaseModel):
                yield from assets_of(each, f"{where}.")
            elif kind is not None and each is not None:
                yield kind, where, each


def image_fields(
    body: object, model: type[BaseModel] | None = None, path: str = ""
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield every image in JSON of a request's shape: path, object, key.

    Args:
        body: a request as a client sent it, or a result record.
    """
    model = model or GenerationRequest
    if not isinstance(body, dict):
        return
    for field, info in model.model_fields.items():
        value = body.get(field)
        if metadata_of(field, model).image and isinstance(value, str):
            yield path + field, body, field
        inner = _inner_model(info.annotation)
        if inner is not None and isinstance(value, list):
            for index, each in enumerate(value[:MAX_LISTED]):
                yield from image_fields(each, inner, f"{path}{field}.{index}.")
        elif inner is not None:
            yield from image_fields(value, inner, f"{path}{field}.")


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model in `Model | None` or `list[Model]`."""
    for each in get_args(annotation):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None
