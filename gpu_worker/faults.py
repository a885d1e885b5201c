"""Says what is wrong with a request: field, sentence, value. A leaf."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

MAX_SHOWN_CHARS = 80


class Refused(ValueError):
    """A job asks for what cannot be done; the text says why, and is all that there is to say."""


def field_errors(error: ValidationError, known: Iterable[str] = ()) -> list[dict[str, Any]]:
    """`[{field, message, value}]`, one for each fault; a long value is shortened.

    Args:
        known: the fields there are, for who sent one that there is not.
    """
    return [
        {
            "field": ".".join(str(part) for part in fault["loc"]) or "body",
            "message": _sentence(fault, known),
            "value": _shown(fault),
        }
        for fault in error.errors(include_url=False)
    ]


def describe(faults: list[dict[str, Any]]) -> str:
    """One readable line: `height: Input should be a multiple of 8 (got 513)`."""
    return "; ".join(
        f"{fault['field']}: {fault['message']}"
        + ("" if fault["value"] is None else f" (got {fault['value']})")
        for fault in faults
    )


def shown(value: object) -> str:
    """A value as it may stand in a sentence: printable, and not long."""
    if isinstance(value, str):
        value = value[: MAX_SHOWN_CHARS + 1]
    text = repr(value) if isinstance(value, str) else ascii(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"


def _sentence(fault: Any, known: Iterable[str]) -> str:
    if fault["type"] == "extra_forbidden":
        where = ", ".join(known) if len(fault["loc"]) == 1 else ""
        return "is not a known field" + (f"; known are {where}" if where else "")
    return str(fault["msg"]).removeprefix("Value error, ")


def _shown(fault: Any) -> str | None:
    return None if fault["type"] == "missing" else shown(fault["input"])
