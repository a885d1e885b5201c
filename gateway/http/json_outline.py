"""Checks a JSON body for what its parser lets through: deep nesting and doubled keys.

It looks at the text outside strings, because the strings of a body are images of many megabytes.
"""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 32
"""The levels of arrays and objects. Those of a request are 4."""

MAX_ESCAPED_QUOTES = 20_000
"""In a whole body. Images have none."""

_QUOTE, _BACKSLASH = b'"', b"\\"
_OPENING = frozenset(b"[{")
_NO_BRACKETS = bytes(char for char in range(256) if char not in b"[]{}")


class Nested(ValueError):
    """The body has too many levels, or too many escaped quotes."""


class DoubledKey(ValueError):
    """A key stands twice in one object. The text is the key."""


def outside_strings(body: bytes) -> bytes:
    """Return the text of a body without its strings. Raises Nested."""
    if body.count(b'\\"') > MAX_ESCAPED_QUOTES:
        raise Nested(f"has more than {MAX_ESCAPED_QUOTES} escaped quotes")
    parts, at = [], 0
    while (begin := body.find(_QUOTE, at)) >= 0:
        parts.append(body[at:begin])
        at = _end_of_string(body, begin + 1)
    parts.append(body[at:])
    return b"".join(parts)


def _end_of_string(body: bytes, at: int) -> int:
    """Return the position behind the quote that ends a string; its end where none does."""
    begin = at
    while (end := body.find(_QUOTE, at)) >= 0:
        if _backslashes_before(body, begin, end) % 2 == 0:
            return end + 1
        at = end + 1
    return len(body)


def _backslashes_before(body: bytes, begin: int, end: int) -> int:
    window = 16
    while True:
        text = body[max(begin, end - window) : end]
        count = len(text) - len(text.rstrip(_BACKSLASH))
        if count < window or len(text) < window:
            return count
        window *= 4


def check_depth(outline: bytes) -> None:
    """Raises Nested if the text outside strings has too many levels."""
    depth = 0
    for bracket in outline.translate(None, _NO_BRACKETS):
        depth += 1 if bracket in _OPENING else -1
        if depth > MAX_DEPTH:
            raise Nested(f"has more than {MAX_DEPTH} levels of arrays and objects")


def check_keys(body: bytes, outline: bytes, value: object) -> None:
    """Raise DoubledKey if a valid body has a key twice: its parser kept the last one.

    Args:
        outline: its text outside strings.
        value: what its parser returned.
    """
    if outline.count(b":") != _count_keys(value):
        json.loads(body, object_pairs_hook=_check_pairs)


def _count_keys(value: object) -> int:
    count, todo = 0, [value]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            count += len(each)
            todo += each.values()
        elif isinstance(each, list):
            todo += each
    return count


def _check_pairs(pairs: list[tuple[str, Any]]) -> None:
    keys: set[str] = set()
    for key, _ in pairs:
        if key in keys:
            raise DoubledKey(key)
        keys.add(key)
