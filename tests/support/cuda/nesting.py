"""Looks into the arguments and results of operations: tuples, lists and dicts of plain values.

torch's own pytree does the same for any class, at several times the cost of a small operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def leaves(value: Any) -> list[Any]:
    """Return every value that is no tuple, list or dict, in order."""
    flat: list[Any] = []
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, tuple | list | dict):
            flat += leaves(each)
        else:
            flat.append(each)
    return flat


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Return the same nesting, each value in it replaced by what the function returns for it."""
    if isinstance(value, tuple | list):
        return type(value)([mapped(function, each) for each in value])
    if isinstance(value, dict):
        return {name: mapped(function, each) for name, each in value.items()}
    return function(value)
