"""Reads `(word:1.3)` in a prompt: fragments and how much each counts. A leaf; knows no model.

A1111's form with an explicit number only: parentheses without one stay what they are, and `\\(`
and `\\)` are parentheses. Nested weights multiply.
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
    """The fragments of a prompt, neighbours of the same weight joined.

    Args:
        field: what the request calls it.

    Raises:
        Unsupported: a weight is beyond +-10, by itself or with those around it.
    """
    open_at: list[int] = []
    parts: list[Fragment] = []
    at = 0
    for found in _TOKEN.finditer(prompt):
        _add(parts, prompt[at : found.start()])
        at = found.end()
        if found[0][0] == "\\":
            _add(parts, found[0][1])
        elif found[0] == "(":
            open_at.append(len(parts))
            parts.append(Fragment("(", 1.0))
        elif not open_at:
            _add(parts, found[0])
        elif found[1] is None:
            open_at.pop()
            _add(parts, ")")
        else:
            parts = _apply_weight(parts, open_at.pop(), float(found[1]), field)
    _add(parts, prompt[at:])
    for part in parts:
        if not abs(part.weight) <= MAX_WEIGHT:  # nor is NaN, of an endless number times nothing
            raise _out_of_range(field, part.weight)
    return _join_neighbours(parts)


def is_weighted(fragments: list[Fragment]) -> bool:
    """Whether anything counts more or less than it would by itself."""
    return any(fragment.weight != 1.0 for fragment in fragments)


def plain_text(fragments: list[Fragment]) -> str:
    """The words without their weights."""
    return "".join(fragment.text for fragment in fragments)


def _out_of_range(field: str, weight: float) -> Unsupported:
    reason = f"the weight is beyond {MAX_WEIGHT:g}; those within each other multiply"
    return Unsupported(field, weight, reason)


def _add(parts: list[Fragment], text: str) -> None:
    if text:
        parts.append(Fragment(text, 1.0))


def _apply_weight(parts: list[Fragment], begin: int, weight: float, field: str) -> list[Fragment]:
    """What stands behind the parenthesis at `begin` counts `weight` times as much."""
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
