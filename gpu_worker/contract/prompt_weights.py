"""Reads `(word:1.3)` in a prompt into fragments and their weights. It knows no model.

The form is A1111's with an explicit number. Parentheses without one stay text, and `\\(` and `\\)`
are parentheses. Nested weights multiply.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gpu_worker.contract.validation_errors import Unsupported

MAX_WEIGHT = 10.0

_TOKEN = re.compile(r"\\[()\\]|\(|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)|\)")


class Fragment(NamedTuple):
    """A part of a prompt."""

    text: str
    weight: float


def parse(prompt: str, field: str = "prompt") -> list[Fragment]:
    """Return the fragments of a prompt; neighbours of the same weight are joined.

    Args:
        field: the prompt's name in the request.

    Raises:
        Unsupported: a weight is beyond +-10, alone or multiplied.
    """
    open_at: list[int] = []
    parts: list[Fragment] = []
    at = 0
    for match in _TOKEN.finditer(prompt):
        _add(parts, prompt[at : match.start()])
        at = match.end()
        if match[0][0] == "\\":
            _add(parts, match[0][1])
        elif match[0] == "(":
            open_at.append(len(parts))
            parts.append(Fragment("(", 1.0))
        elif not open_at:
            _add(parts, match[0])
        elif match[1] is None:
            open_at.pop()
            _add(parts, ")")
        else:
            parts = _apply_weight(parts, open_at.pop(), float(match[1]), field)
    _add(parts, prompt[at:])
    for part in parts:
        if not abs(part.weight) <= MAX_WEIGHT:  # NaN, which infinity times 0 gives, fails this too
            raise _out_of_range(field, part.weight)
    return _join_neighbours(parts)


def is_weighted(fragments: list[Fragment]) -> bool:
    """Return whether a fragment has another weight than 1."""
    return any(fragment.weight != 1.0 for fragment in fragments)


def plain_text(fragments: list[Fragment]) -> str:
    """Return the text without its weights."""
    return "".join(fragment.text for fragment in fragments)


def _out_of_range(field: str, weight: float) -> Unsupported:
    reason = f"has a weight beyond {MAX_WEIGHT:g}; nested weights multiply"
    return Unsupported(field, weight, reason)


def _add(parts: list[Fragment], text: str) -> None:
    if text:
        parts.append(Fragment(text, 1.0))


def _apply_weight(parts: list[Fragment], begin: int, weight: float, field: str) -> list[Fragment]:
    """Multiply the weights after the parenthesis at `begin`."""
    if abs(weight) > MAX_WEIGHT:
        raise _out_of_range(field, weight)
    inside = [Fragment(part.text, part.weight * weight) for part in parts[begin + 1 :]]
    return parts[:begin] + inside


def _join_neighbours(parts: list[Fragment]) -> list[Fragment]:
    joined: list[Fragment] = []
    for part in parts:
        if joined and joined[-1].weight == part.weight:
            joined[-1] = Fragment(joined[-1].text + part.text, part.weight)
        else:
            joined.append(part)
    return joined or [Fragment("", 1.0)]
