"""What a part is: its cases by name, and how long each may take. It runs nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.gpu.ledger import Line
from bench.gpu.session import Session

Measure = Callable[[Session, Line], None]
"""Fills the line of its case; an exception becomes a problem of the case."""


Cases = dict[str, Measure]


class Skip(Exception):
    """A case that this machine cannot run. The text says why."""


@dataclass(frozen=True)
class Part:
    """The cases of one part, in the order in which they run in one process.

    `case_s` is the limit of each case in seconds. The cases in `alone` begin in a new process.
    """

    cases: Mapping[str, Measure]
    case_s: float = 60.0
    alone: frozenset[str] = field(default_factory=frozenset)


def by_model(models: Iterable[str], measures: Mapping[str, Callable[..., None]]) -> Cases:
    """Return a case for each model and measure, which gets the model's name."""
    return {
        f"{model} {title}": functools.partial(measure, model=model)
        for model in models
        for title, measure in measures.items()
    }


def expect(line: Line, holds: bool, problem: str) -> None:
    """Note a problem unless something holds."""
    if not holds:
        line.problems.append(problem)


def rounded(numbers: Mapping[str, Any], digits: int = 4) -> dict[str, Any]:
    """Return numbers with so many significant digits; NaN becomes None, which is JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, float):
            return None if value != value else float(f"{value:.{digits}g}")
        return value

    return {name: plain(value) for name, value in numbers.items()}
