"""The file of results, one JSON line for each case. A line is on disk before the next case begins.

A run that is cut off goes on from here: a case that has a line is not run again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Line:
    """The result of one case.

    `problems` are sentences about what is not as it should be. A case that could not run on this
    machine has `skipped`, the reason. `numbers` are plain JSON values; units are in their names.
    """

    part: str
    case: str
    problems: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    skipped: str = ""
    device: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Return what identifies the case."""
        return self.part, self.case


class Ledger:
    """The results in one file, the newest of a case last."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Line]:
        """Return one line for each case, in the order of their first run.

        A last line that was cut off in its middle is no result.
        """
        lines: dict[tuple[str, str], Line] = {}
        for text in self._texts():
            try:
                line = Line(**json.loads(text))
            except (ValueError, TypeError):
                continue
            lines[line.key] = line
        return list(lines.values())

    def _texts(self) -> Iterable[str]:
        return self._path.read_text().splitlines() if self._path.exists() else []

    def append(self, line: Line) -> None:
        """Add the result of a case."""
        is_torn = self._path.exists() and not self._path.read_bytes().endswith(b"\n")
        with self._path.open("a") as file:
            file.write("\n" * is_torn + json.dumps(asdict(line)) + "\n")

    def drop_failures(self) -> None:
        """Remove the cases with problems, so that they run again."""
        good = [line for line in self.read() if not line.problems]
        draft = self._path.with_suffix(".tmp")
        draft.write_text("".join(json.dumps(asdict(line)) + "\n" for line in good))
        draft.replace(self._path)
