"""Starts a part of the matrix in a process of its own, and holds its lines to what is expected."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.service import ROOT

MAX_DIFFERENCE = 4
"""Of 255: attention is summed in another order, and tiny weights make that visible."""

Line = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """Cases that fail today, and why.

    `finding` is its number in the review. `cases` and `words` are patterns: of the whole names of
    the cases, and of the problem that each of them has.
    """

    finding: int
    cases: str
    words: str

    def concerns(self, line: Line) -> bool:
        """Return whether the case of this line fails because of this fault."""
        return re.fullmatch(self.cases, line["name"]) is not None

    def explains(self, problem: str) -> bool:
        """Return whether a problem is of this fault."""
        return re.search(self.words, problem) is not None


def run(part: str, folder: Path) -> list[Line]:
    """Return the lines of a part.

    Raises:
        AssertionError: the process did not end well.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.cuda_matrix", part, str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def problems(line: Line) -> list[str]:
    """Return what is wrong with a case."""
    too_far = line["difference"] > MAX_DIFFERENCE
    return line["problems"] + ([f"the images differ by {line['difference']}"] if too_far else [])


def unexplained(lines: list[Line], faults: list[Fault]) -> list[str]:
    """Return the problems that no fault explains."""
    return [
        f"{line['name']}: {problem}"
        for line in lines
        for problem in problems(line)
        if not any(fault.concerns(line) and fault.explains(problem) for fault in faults)
    ]


def mended(lines: list[Line], faults: list[Fault]) -> list[str]:
    """Return the cases that a fault names and that have no such problem any more."""
    return [
        f"finding {fault.finding}: {line['name']} has no problem like {fault.words!r}"
        for fault in faults
        for line in lines
        if fault.concerns(line) and not any(map(fault.explains, problems(line)))
    ]


def summary(part: str, lines: list[Line]) -> str:
    """Return the counts of a part as one line."""
    failing = sum(bool(problems(line)) for line in lines)
    seconds = sum(line["cpu_seconds"] for line in lines)
    return (
        f"{part}: {len(lines)} cases, {failing} with problems, largest difference "
        f"{max(line['difference'] for line in lines)} of 255, {seconds:.0f} s of one core"
    )
