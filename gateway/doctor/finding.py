"""Defines what the doctor reports, and prints it. It imports the standard library alone."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Literal

COLUMNS = 80

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was checked. The text of a warning or a problem says what to do, too."""

    level: Level
    area: str
    text: str


def ok(area: str, text: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding("ok", area, text)


def warning(area: str, text: str) -> Finding:
    """Return a finding with which the service runs, but not as it could."""
    return Finding("warning", area, text)


def problem(area: str, text: str) -> Finding:
    """Return a finding that must be mended: the service cannot work, or others read its files."""
    return Finding("problem", area, text)


class Report:
    """Prints findings as they come, or as one JSON object at the end.

    Args:
        clean: removes secrets and control characters from a text.
    """

    def __init__(self, clean: Callable[[str], str], *, as_json: bool) -> None:
        self._clean = clean
        self._as_json = as_json
        self._findings: list[Finding] = []

    def add(self, findings: Iterable[Finding]) -> None:
        """Print these findings, or keep them for the JSON."""
        for each in findings:
            finding = Finding(each.level, each.area, self._clean(each.text))
            self._findings.append(finding)
            if not self._as_json:
                print(_lines(finding), flush=True)

    def close(self) -> int:
        """Print the verdict, and return the number of problems."""
        problems, warnings = self._count("problem"), self._count("warning")
        if self._as_json:
            findings = [asdict(each) for each in self._findings]
            counts = {"problems": problems, "warnings": warnings}
            print(json.dumps({**counts, "findings": findings}, indent=2))
        else:
            print(f"\n{_number(problems, 'problem')}, {_number(warnings, 'warning')}")
        return problems

    def _count(self, level: Level) -> int:
        return sum(each.level == level for each in self._findings)


def _lines(finding: Finding) -> str:
    head = f"{finding.level:<8} "
    return textwrap.fill(
        f"{finding.area}: {finding.text}",
        COLUMNS,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
    )


def _number(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"
