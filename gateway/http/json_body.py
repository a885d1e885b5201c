"""Reads a request's JSON body, bounds its size, and says in words what is invalid."""

from __future__ import annotations

import json
from collections import deque
from typing import Any, TypeVar

import falcon
import orjson
from pydantic import BaseModel, ValidationError

from gateway.errors import InvalidRequest
from gateway.http import json_outline
from gateway.http.params import JSON
from gpu_worker.contract.validation_errors import display_value, field_errors, field_name

ModelT = TypeVar("ModelT", bound=BaseModel)

PLAIN_BODY_BYTES = 1 << 20
MAX_SEPARATORS = 20_000
"""The limit of commas and brackets in a body above PLAIN_BODY_BYTES. Images make a body large;
long lists of nothing would fill the memory."""

SECOND_LOOK_BYTES = 64 << 10
"""An invalid body up to this size is parsed once more, to locate the invalid value."""


class _InvalidNumber(str):
    """A number for Python's parser but not in JSON: NaN, Infinity, 1e999 (RFC 8259, section 6)."""


def too_large(sentence: str) -> falcon.HTTPContentTooLarge:
    """Return a 413 with this sentence."""
    return falcon.HTTPContentTooLarge(title="Too large", description=sentence)


def json_body(req: falcon.Request, limit_bytes: int) -> object:
    """Return the request's JSON.

    Any other content type is refused, and so is a missing one: a form on a page of another site
    could send those (cross-site request forgery).

    Raises:
        falcon.HTTPError: 415, 413 or 400.
        InvalidRequest: the body is nested too deeply.
    """
    _check_type(req)
    body = req.bounded_stream.read(limit_bytes + 1)
    if len(body) > limit_bytes:
        raise too_large(f"the body is larger than the limit of {limit_bytes} bytes")
    if len(body) > PLAIN_BODY_BYTES and sum(map(body.count, (b",", b"[", b"{"))) > MAX_SEPARATORS:
        raise too_large(
            f"the body is above {PLAIN_BODY_BYTES} bytes and has more than {MAX_SEPARATORS} commas "
            "and brackets, which only images justify"
        )
    try:
        value: object = orjson.loads(body)  # up to 1024 levels
        outline = json_outline.outside_strings(body)
        json_outline.check_depth(outline)
        json_outline.check_keys(body, outline, value)
    except json_outline.DoubledKey as error:
        raise _broken(f"{_path((None, str(error)))}: is sent more than once") from None
    except json_outline.Nested as error:
        raise InvalidRequest([{"field": "body", "message": str(error), "value": None}]) from None
    except orjson.JSONDecodeError as error:
        why = _locate_invalid_value(body) or error
        raise _broken(f"the body is not valid JSON: {why}") from None
    return value


def validated(model: type[ModelT], content: object) -> ModelT:
    """Return JSON as a model. Raises InvalidRequest, which names every invalid field."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error, model.model_fields), model.model_fields) from None


def _broken(sentence: str) -> falcon.HTTPBadRequest:
    return falcon.HTTPBadRequest(title="Broken JSON", description=sentence)


def _check_type(req: falcon.Request) -> None:
    """Raises falcon.HTTPUnsupportedMediaType."""
    media_type, parameters = falcon.parse_header(req.content_type or "")
    if media_type.lower() != JSON:
        got = f"not {display_value(req.content_type)}" if req.content_type else "it is missing"
        raise _unsupported(f"Content-Type must be {JSON}: {got}")
    charset = parameters.get("charset", "utf-8")
    if charset.lower() not in ("utf-8", "utf8"):
        raise _unsupported(f"Content-Type: JSON is UTF-8, not {display_value(charset)}")
    coding = req.get_header("Content-Encoding") or "identity"
    if coding.lower() != "identity":
        raise _unsupported(
            f"Content-Encoding: {display_value(coding)} is not supported; send the body as it is"
        )


def _unsupported(sentence: str) -> falcon.HTTPUnsupportedMediaType:
    return falcon.HTTPUnsupportedMediaType(
        title="Unsupported media type",
        description=sentence,
        headers={"Accept-Encoding": "identity"},  # RFC 9110, section 15.5.16
    )


def _locate_invalid_value(body: bytes) -> str | None:
    """Return the field, its value and the reason where a number or a lone surrogate is what makes
    the JSON invalid; None where it is broken in another way."""
    if len(body) > SECOND_LOOK_BYTES:
        return None
    try:
        read = json.loads(body.decode(), parse_constant=_InvalidNumber, parse_float=_number)
    except (ValueError, RecursionError):
        return None
    # No recursion, and a path is built only for the value that is reported.
    todo: deque[tuple[Any, object]] = deque([(None, read)])
    while todo:
        where, value = todo.popleft()
        if isinstance(value, _InvalidNumber):
            return f"{_path(where)}: {display_value(str(value))} is not a number in JSON"
        if isinstance(value, str) and not _is_text(value):
            return f"{_path(where)}: has a lone surrogate: {display_value(value)}"
        if isinstance(value, dict):
            for key in value:
                todo += (((where, key), key), ((where, key), value[key]))
        elif isinstance(value, list):
            todo.extend(((where, place), each) for place, each in enumerate(value))
    return None


def _number(text: str) -> float | _InvalidNumber:
    value = float(text)
    return _InvalidNumber(text) if value in (float("inf"), float("-inf")) else value


def _is_text(value: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in value)


def _path(where: Any) -> str:
    keys: list[object] = []
    while where is not None:
        where, key = where
        keys.append(key)
    return field_name(reversed(keys))
