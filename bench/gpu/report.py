"""The results for people: a line as each case ends, and at the end a table for each part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.gpu.ledger import Line
from bench.table import markdown, number

MAX_COLUMNS = 9
MAX_TEXT_CHARS = 40


def progress(line: Line) -> str:
    """Return one case as a line of the terminal."""
    return f"{line.part} / {line.case}: {_verdict(line)}, {line.seconds:.1f} s"


def text(lines: Sequence[Line]) -> str:
    """Return the whole report: what went wrong, then a table for each part."""
    parts: dict[str, list[Line]] = {}
    for line in lines:
        parts.setdefault(line.part, []).append(line)
    devices = sorted({line.device for line in lines if line.device})
    head = [f"# {', '.join(devices) or 'no card'}", _summary(parts), _problems(lines)]
    return "\n\n".join(filter(None, [*head, *(_part(name, parts[name]) for name in parts)]))


def _summary(parts: dict[str, list[Line]]) -> str:
    rows = [
        [
            name,
            str(len(lines)),
            str(sum(not line.problems and not line.skipped for line in lines)),
            str(sum(bool(line.skipped) for line in lines)),
            str(sum(bool(line.problems) for line in lines)),
            f"{sum(line.seconds for line in lines):.0f}",
        ]
        for name, lines in parts.items()
    ]
    return markdown(("part", "cases", "well", "skipped", "problems", "seconds"), rows)


def _problems(lines: Sequence[Line]) -> str:
    sentences = [
        f"- {line.part} / {line.case}: {problem}" for line in lines for problem in line.problems
    ]
    return "\n".join(["Problems:", "", *sentences]) if sentences else "No case has a problem."


def _part(name: str, lines: Sequence[Line]) -> str:
    """Return a part's table: one row a case where the cases measure the same, else pairs."""
    measured = [line for line in lines if line.numbers]
    columns = list(dict.fromkeys(key for line in measured for key in line.numbers))
    shared = set.intersection(*(set(line.numbers) for line in measured)) if measured else set()
    is_table = len(columns) <= MAX_COLUMNS and len(shared) * 2 >= len(columns)
    skipped = [f"- {line.case}: skipped, {line.skipped}" for line in lines if line.skipped]
    if not measured:
        return "\n".join([f"## {name}", "", *skipped]) if skipped else ""
    if is_table:
        rows = [
            [line.case, *(_cell(line.numbers.get(key)) for key in columns)] for line in measured
        ]
        body = markdown((name, *columns), rows)
    else:
        body = "\n".join(f"- {line.case}: {_pairs(line.numbers)}" for line in measured)
    return "\n".join([f"## {name}", "", body, *skipped])


def _pairs(numbers: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_cell(value, whole=True)}" for key, value in numbers.items())


def _cell(value: Any, *, whole: bool = False) -> str:
    """Return a value as short as it is readable; the results' file has it whole."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        value = "; ".join(_cell(each, whole=whole) for each in value)
    elif isinstance(value, dict):
        value = "; ".join(f"{key} {_cell(each, whole=whole)}" for key, each in value.items())
    shown = str(value)
    return shown if whole or len(shown) <= MAX_TEXT_CHARS else f"{shown[: MAX_TEXT_CHARS - 3]}..."


def _verdict(line: Line) -> str:
    if line.problems:
        return f"PROBLEM: {line.problems[0]}"
    return f"skipped, {line.skipped}" if line.skipped else "well"
