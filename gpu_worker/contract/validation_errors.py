"""Builds the error messages of a request: field, message and value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

MAX_SHOWN_CHARS = 80
MAX_NAME_CHARS = 200

MAX_ERRORS = 20
"""The errors that a response lists; it counts the others, so that it stays small."""

_WHOLE_NUMBER, _NUMBER, _TRUTH = "a whole number", "a number", "true or false"
_KINDS = {
    **dict.fromkeys(
        ("int_type", "int_from_float", "int_parsing", "int_parsing_size"), _WHOLE_NUMBER
    ),
    **dict.fromkeys(("float_type", "float_parsing"), _NUMBER),
    **dict.fromkeys(("bool_type", "bool_parsing"), _TRUTH),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a JSON object"),
    "finite_number": "a finite number",
    "list_type": "a list",
    "string_type": "a string",
    "string_unicode": "text in Unicode",
}
"""What a value must be, by pydantic's types of errors (https://errors.pydantic.dev)."""

_MESSAGES = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "too_long": "must have at most {max_length} items",
    "too_short": "must have at least {min_length} items",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "multiple_of": "must be a multiple of {multiple_of:g}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
}
"""Messages by pydantic's types of errors, with the names of their context."""

_QUOTED_PATH = re.compile(r"(['\"])(?:file://|~)?/[^'\"\n]*/([^'\"/\n]*)\1")
_PATH = re.compile(r"(?<![\w./~-])(?:file://|~)?(?:/[^\s'\":,;()<>/]+)+/([^\s'\":,;()<>/]*)")
"""An absolute path with at least two parts. Its last part may be shown to a client."""

_EXCEPTION = re.compile(r"(?<![\w.])[\w.]{0,80}(?:Error|Exception): ?")
"""The name of an exception as tracebacks print it."""

_CLASS = re.compile(r"<class '[\w.]*?(\w+)'>")


class Refusal(ValueError):
    """A job cannot be done. The text is the whole message for the user."""


class Unsupported(Refusal):
    """A field, or its value, is not supported.

    Args:
        field: the field's path in the request, such as `loras.0.name`.
        value: the field's value.
        reason: the rest of a sentence that begins with the field.
    """

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(f"{field}: {reason} (got {display_value(value)})")
        self.field, self.value, self.reason = field, value, reason

    @property
    def error(self) -> dict[str, Any]:
        """Return the refusal as one of the errors of a problem document."""
        return {"field": self.field, "message": self.reason, "value": display_value(self.value)}


def field_errors(
    error: ValidationError, fields: Mapping[str, FieldInfo] | None = None
) -> list[dict[str, Any]]:
    """Return `[{field, message, value}]`, one for each error; long values are shortened.

    Args:
        fields: those of the model, for their limits.
    """
    return [
        {
            "field": field_name(detail["loc"]),
            "message": _message(detail, fields or {}),
            "value": _display_input(detail),
        }
        for detail in error.errors(include_url=False)
    ]


def join_errors(errors: list[dict[str, Any]], known_fields: Iterable[str] = ()) -> str:
    """Return one readable line: `height: must be a multiple of 8 (got 513)`.

    Args:
        known_fields: they are listed once when an unknown field was sent.
    """
    sentences = [
        f"{error['field']}: {error['message']}"
        + ("" if error["value"] is None else f" (got {error['value']})")
        for error in errors[:MAX_ERRORS]
    ]
    if len(errors) > MAX_ERRORS:
        sentences.append(f"and {len(errors) - MAX_ERRORS} more")
    names = ", ".join(known_fields)
    if names and any("known field" in error["message"] for error in errors):
        sentences.append(f"the known fields are {names}")
    return "; ".join(sentences)


def limit_members(value: object, limit: int) -> object:
    """Return the value. Raises ValueError for a JSON object with more members than `limit`.

    Each invalid member has an error of its own, which takes 100 times its memory.
    """
    if isinstance(value, dict) and len(value) > limit:
        raise ValueError(f"has {len(value)} members; the limit is {limit}")
    return value


def error_text(error: object) -> str:
    """Return an error's text for a client, as UTF-8.

    A file name in it may not be UTF-8. Absolute paths of this machine become their last part, and
    the names of exceptions are removed.
    """
    text = str(error).encode("utf-8", "backslashreplace").decode()
    text = _PATH.sub(r"\1", _QUOTED_PATH.sub(r"\1\2\1", text))
    return _EXCEPTION.sub("", _CLASS.sub(r"\1", text))


def display_value(value: object) -> str:
    """Return a value for a sentence: printable and short."""
    if isinstance(value, str):
        value = value[: MAX_SHOWN_CHARS + 1]
    text = repr(value) if isinstance(value, str) else ascii(value)
    return _shorten(text.encode("utf-8", "backslashreplace").decode(), MAX_SHOWN_CHARS)


def field_name(parts: Iterable[object]) -> str:
    """Return a path such as `loras.0.weight`; `body` for the whole."""
    names = [_shorten(str(part), MAX_SHOWN_CHARS) for part in parts]
    text = ".".join(names).encode("utf-8", "backslashreplace").decode()
    return _shorten(text, MAX_NAME_CHARS) or "body"


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _message(detail: Any, fields: Mapping[str, FieldInfo]) -> str:
    kind, path = detail["type"], detail["loc"]
    if kind in _KINDS:
        is_known = len(path) == 1 and path[0] in fields
        limits = _limits(fields[path[0]]) if is_known and "number" in _KINDS[kind] else ""
        return f"must be {_KINDS[kind]}{limits}"
    if kind in _MESSAGES:
        return _MESSAGES[kind].format(**detail.get("ctx", {}))
    return str(detail["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")


def error_message(detail: Any, messages: Mapping[str, str] | None = None) -> str:
    """Return the rest of a sentence that begins with the value's name.

    Args:
        detail: one of the errors of a ValidationError.
        messages: they precede ours, by pydantic's types of errors.
    """
    own = (messages or {}).get(detail["type"])
    return own or _message(detail, {})


def type_errors(error: ValidationError) -> str:
    """Return what a single value must be, for a message about it."""
    messages = [_message(detail, {}) for detail in error.errors(include_url=False)]
    return " or ".join(dict.fromkeys(messages))


def _limits(field: FieldInfo) -> str:
    """Return ` from 64 to 2048`, the limits of a field, also of an optional one."""
    inner = [part for kind in get_args(field.annotation) for part in _metadata(kind)]
    marks = [*field.metadata, *(mark for part in inner for mark in getattr(part, "metadata", ()))]
    low, high = (
        [x for mark in marks if (x := getattr(mark, at, None)) is not None] for at in ("ge", "le")
    )
    return f" from {low[0]} to {high[0]}" if low and high else ""


def _metadata(kind: Any) -> tuple[Any, ...]:
    return getattr(kind, "__metadata__", ())


def _display_input(detail: Any) -> str | None:
    return None if detail["type"] == "missing" else display_value(detail["input"])
