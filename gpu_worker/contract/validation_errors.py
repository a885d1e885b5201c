"""Says what is wrong with a request: field, sentence, value. A leaf."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

MAX_SHOWN_CHARS = 80
MAX_NAME_CHARS = 200

MAX_ERRORS = 20
"""So many are told, and how many more there are: an answer is not to outgrow its question."""

_NO_INTEGER = ("int_type", "int_from_float")


class Refusal(ValueError):
    """A job asks for what cannot be done; the text says why, and is all that there is to say."""


class Unsupported(Refusal):
    """A field asks for what cannot be done, or not with this value.

    Args:
        field: the field's path in the request, such as `loras.0.name`.
        value: what it was asked to be.
        reason: the rest of a sentence that begins with the field: what can be done instead.
    """

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(f"{field}: {reason} (got {display_value(value)})")
        self.field, self.value, self.reason = field, value, reason

    @property
    def error(self) -> dict[str, Any]:
        """The refusal as one of the errors of a problem document."""
        return {"field": self.field, "message": self.reason, "value": display_value(self.value)}


def field_errors(
    error: ValidationError, fields: Mapping[str, FieldInfo] | None = None
) -> list[dict[str, Any]]:
    """`[{field, message, value}]`, one for each fault; what is long is shortened.

    Args:
        fields: those of the model, for what they allow.
    """
    return [
        {
            "field": field_name(fault["loc"]),
            "message": _message(fault, fields or {}),
            "value": _display_input(fault),
        }
        for fault in error.errors(include_url=False)
    ]


def join_errors(faults: list[dict[str, Any]], known: Iterable[str] = ()) -> str:
    """One readable line: `height: Input should be a multiple of 8 (got 513)`.

    Args:
        known: the fields there are; told once, when one is named that there is not.
    """
    said = [
        f"{fault['field']}: {fault['message']}"
        + ("" if fault["value"] is None else f" (got {fault['value']})")
        for fault in faults[:MAX_ERRORS]
    ]
    if len(faults) > MAX_ERRORS:
        said.append(f"and {len(faults) - MAX_ERRORS} more")
    names = ", ".join(known)
    if names and any("known field" in fault["message"] for fault in faults):
        said.append(f"known fields are {names}")
    return "; ".join(said)


def unknown_fields_message(names: list[object]) -> str:
    """What many of them at once are told, without a sentence for each."""
    some = ", ".join(display_value(name) for name in names[:MAX_ERRORS])
    more = len(names) - MAX_ERRORS
    return f"has unknown fields: {some} and {more} more"


def error_text(error: object) -> str:
    """An error's words as they can be sent and stored: a file's name may be no UTF-8."""
    return str(error).encode("utf-8", "backslashreplace").decode()


def display_value(value: object) -> str:
    """A value as it may stand in a sentence: printable, and not long."""
    if isinstance(value, str):
        value = value[: MAX_SHOWN_CHARS + 1]
    text = repr(value) if isinstance(value, str) else ascii(value)
    return _shorten(text.encode("utf-8", "backslashreplace").decode(), MAX_SHOWN_CHARS)


def field_name(parts: Iterable[object]) -> str:
    """`loras.0.weight`; `body` for the whole."""
    names = [_shorten(str(part), MAX_SHOWN_CHARS) for part in parts]
    text = ".".join(names).encode("utf-8", "backslashreplace").decode()
    return _shorten(text, MAX_NAME_CHARS) or "body"


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _message(fault: Any, fields: Mapping[str, FieldInfo]) -> str:
    kind, where = fault["type"], fault["loc"]
    if kind == "extra_forbidden":
        return "is not a known field"
    if kind == "model_type":  # pydantic's own words name the class
        return "must be a JSON object"
    if kind in _NO_INTEGER and len(where) == 1 and where[0] in fields:
        return f"must be a whole number{_limits(fields[where[0]])}"
    return str(fault["msg"]).removeprefix("Value error, ")


def _limits(field: FieldInfo) -> str:
    """` from 64 to 2048`, as a field of a model says it, also beside None."""
    inner = [part for kind in get_args(field.annotation) for part in _metadata(kind)]
    marks = [*field.metadata, *(mark for part in inner for mark in getattr(part, "metadata", ()))]
    low, high = (
        [x for mark in marks if (x := getattr(mark, at, None)) is not None] for at in ("ge", "le")
    )
    return f" from {low[0]} to {high[0]}" if low and high else ""


def _metadata(kind: Any) -> tuple[Any, ...]:
    return getattr(kind, "__metadata__", ())


def _display_input(fault: Any) -> str | None:
    return None if fault["type"] == "missing" else display_value(fault["input"])
