"""Numbers for people: a median, a percentile, a markdown table, a goal and whether it is met."""

from __future__ import annotations

from collections.abc import Sequence


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of all does not exceed (nearest rank); NaN of none."""
    if not values:
        return float("nan")
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def mean(values: Sequence[float]) -> float:
    """NaN of none."""
    return sum(values) / len(values) if values else float("nan")


def number(value: float, unit: str = "") -> str:
    """Three figures, or a dash for what was not measured."""
    if value != value:
        return "-"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}{unit}"


def ratio(value: float, base: float) -> str:
    """`1.25x`, or a dash."""
    return number(value / base, "x") if base else "-"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers."""
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if not k else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join((first, *others))} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join((line(head), line(rule), *map(line, rows)))


def goal(text: str, value: float, most: float, unit: str = "") -> list[str]:
    """One row: what is wanted, what was found, whether it is met."""
    met = "met" if value <= most else "MISSED"
    return [text, f"<= {most:g}{unit}", number(value, unit), met if value == value else "-"]
