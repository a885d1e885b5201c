"""A request's body: JSON of the size that is taken, and what is wrong with it in words."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

import falcon
import orjson

from gateway.http.params import JSON
from gpu_worker.contract.validation_errors import display_value, field_name

PLAIN_BODY_BYTES = 1 << 20
MAX_SEPARATORS = 20_000
"""In a larger body: what is large is its pictures, and lists of nothing would fill the memory."""

SECOND_LOOK_BYTES = 64 << 10
"""A body that is no JSON is read once more, to say where, when it is not larger than this."""


class _InvalidNumber(str):
    """What Python's reader takes for a number and JSON does not: NaN, Infinity, 1e999."""


def too_large(sentence: str) -> falcon.HTTPContentTooLarge:
    """413."""
    return falcon.HTTPContentTooLarge(title="Too large", description=sentence)


def json_body(req: falcon.Request, limit_bytes: int) -> object:
    """The request's JSON; any other content type is refused, also none: a form on a foreign page
    could send those (cross-site request forgery).

    Raises:
        falcon.HTTPError: 415, 413 or 400.
    """
    _check_type(req)
    body = req.bounded_stream.read(limit_bytes + 1)
    if len(body) > limit_bytes:
        raise too_large(f"a request has at most {limit_bytes} bytes")
    if len(body) > PLAIN_BODY_BYTES and sum(map(body.count, (b",", b"[", b"{"))) > MAX_SEPARATORS:
        raise too_large(f"a request without its pictures has at most {PLAIN_BODY_BYTES} bytes")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        why = _locate_invalid_value(body) or error
        raise falcon.HTTPBadRequest(
            title="Broken JSON", description=f"the body is not valid JSON: {why}"
        ) from None


def _check_type(req: falcon.Request) -> None:
    """Raises falcon.HTTPUnsupportedMediaType."""
    said, parameters = falcon.parse_header(req.content_type or "")
    if said.lower() != JSON:
        got = f"got {display_value(req.content_type)}" if req.content_type else "none was sent"
        raise _unsupported(f"Content-Type must be {JSON}; {got}")
    charset = parameters.get("charset", "utf-8")
    if charset.lower() not in ("utf-8", "utf8"):
        raise _unsupported(f"Content-Type: JSON is UTF-8, not {display_value(charset)}")
    coding = req.get_header("Content-Encoding") or "identity"
    if coding.lower() != "identity":
        raise _unsupported(
            f"Content-Encoding: {display_value(coding)} is not taken: send the body as it is"
        )


def _unsupported(sentence: str) -> falcon.HTTPUnsupportedMediaType:
    return falcon.HTTPUnsupportedMediaType(
        title="Unsupported media type",
        description=sentence,
        headers={"Accept-Encoding": "identity"},  # RFC 9110, section 15.5.16
    )


def _locate_invalid_value(body: bytes) -> str | None:
    """The field, the value and why, where the text would be JSON but for a number or a lone
    surrogate that JSON has no room for; None when it is broken otherwise."""
    if len(body) > SECOND_LOOK_BYTES:
        return None
    try:
        read = json.loads(body.decode(), parse_constant=_InvalidNumber, parse_float=_number)
    except (ValueError, RecursionError):
        return None
    # Without recursion, and a path is put together only for the one that is told.
    todo: deque[tuple[Any, object]] = deque([(None, read)])
    while todo:
        where, value = todo.popleft()
        if isinstance(value, _InvalidNumber):
            return f"{_path(where)}: {display_value(str(value))} is no number that JSON has"
        if isinstance(value, str) and not _is_text(value):
            return f"{_path(where)}: must not contain a lone surrogate (got {display_value(value)})"
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
