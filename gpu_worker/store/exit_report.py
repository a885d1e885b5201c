"""Defines the report of how a worker's process last ended: `run/gpu-N.exit.json`.

The launcher of the worker writes it, and the gateway reads it. It imports the standard library
alone, so that the launcher runs when a package is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

LOOP_FAILURES = 3
"""After so many ends without a finished job in between, the worker counts as failed."""


@dataclass(frozen=True)
class ExitReport:
    """How the last process ended.

    `reason` is a sentence, None once a later process has finished a job. `time` is ISO 8601.
    `failures` counts the ends since the last finished job, and `restarts` the starts after the
    first one since the launcher has started. `code` is the exit code, negative for a signal.
    """

    reason: str | None = None
    time: str | None = None
    code: int | None = None
    failures: int = 0
    restarts: int = 0

    @property
    def is_loop(self) -> bool:
        """Return whether the worker cannot be started, as far as anybody can know.

        An invalid setting and a data folder that cannot be written need no further attempt.
        """
        return self.failures >= LOOP_FAILURES or (
            self.failures > 0 and self.code in (os.EX_CONFIG, os.EX_CANTCREAT)
        )


NO_EXIT = ExitReport()


def path(run_dir: Path, worker: str) -> Path:
    """Return the file of a worker such as `gpu-0`."""
    return run_dir / f"{worker}.exit.json"


def write(file: Path, report: ExitReport) -> None:
    """Replace the report. A full disk costs only this file."""
    new = file.with_name(f"{file.name}.tmp")
    with contextlib.suppress(OSError):
        new.write_text(json.dumps(asdict(report)) + "\n", encoding="ascii")
        new.replace(file)


def read(file: Path) -> ExitReport:
    """Return the report; NO_EXIT if there is none, or none that can be read."""
    try:
        report = ExitReport(**json.loads(file.read_text(encoding="ascii")))
    except (OSError, ValueError, TypeError):
        return NO_EXIT
    texts, numbers = (report.reason, report.time), (report.failures, report.restarts)
    is_valid = all(text is None or isinstance(text, str) for text in texts)
    is_valid &= all(type(number) is int for number in numbers)
    is_valid &= report.code is None or type(report.code) is int
    return report if is_valid else NO_EXIT
