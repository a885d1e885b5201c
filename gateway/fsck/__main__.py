"""`python -m gateway.fsck`: checks and repairs the store of a service on this machine.

The command prints the findings of scan_store.py. With --fix it holds all locks and runs repair.py.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

from gateway.fsck import locks, repair, scan_store
from gateway.fsck.report import Finding, Kind, Report
from gpu_worker.settings import Settings
from gpu_worker.store import segments
from gpu_worker.store.process import StoreLocked

EX_FAULTS = 1
"""The store has faults. fsck(8) uses the same code for errors."""

EX_INTERRUPTED = 130
"""128 plus the number of SIGINT, as in bash(1), EXIT STATUS."""

ROUNDS = 3
"""The store is checked again after each repair, because one fault may hide another."""


def run() -> int:
    """Run the command with the arguments and environment of this process."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return main(sys.argv[1:], os.environ)
    except KeyboardInterrupt:
        return EX_INTERRUPTED


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Check the store, repair it with --fix, and return the exit code.

    The codes are 0 for a sound or repaired store, 1 for faults, 66 for a missing store, 74 for an
    error of the disk, and 75 for a running service that holds a lock.
    """
    parser = argparse.ArgumentParser(prog="sde fsck", description="Check the store of a service.")
    parser.add_argument(
        "--fix", action="store_true", help="repair the store; stop the service first"
    )
    parser.add_argument("--data-dir", help="default: SDE_DATA_DIR, else ./data")
    options = parser.parse_args(arguments)
    data_dir = options.data_dir or environ.get("SDE_DATA_DIR")
    settings = Settings.model_validate({"SDE_DATA_DIR": data_dir} if data_dir else {})
    if not settings.results_dir.is_dir() and not settings.journal_path.exists():
        return _fail(f"{settings.data_dir} holds no store", os.EX_NOINPUT)
    try:
        code = _fix(settings) if options.fix else _check(settings)
        sys.stdout.flush()
        return code
    except StoreLocked as error:
        return _fail(f"stop the service first: {error}", os.EX_TEMPFAIL)
    except BrokenPipeError:
        # The reader has gone. Without this the interpreter reports it again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EX_FAULTS
    except (OSError, sqlite3.Error) as error:
        return _fail(str(error), os.EX_IOERR)


def _fail(message: str, code: int) -> int:
    print(f"sde fsck: {message}", file=sys.stderr)
    return code


def _check(settings: Settings) -> int:
    def is_live(writer: str) -> bool:
        return locks.is_live(settings, writer)

    with _scan(settings, locks.names(settings.results_dir), is_live) as report:
        _summarize(report)
        if not report.faults:
            print("the store is sound")
            return 0
        if report.repairable:
            print("stop the service and run: sde fsck --fix")
        _report_remaining(report)
        return EX_FAULTS


def _fix(settings: Settings) -> int:
    os.umask(0o077)
    with ExitStack() as lock_stack:
        workers = locks.hold_all(settings, lock_stack)
        faults = 0
        for rounds_left in reversed(range(ROUNDS)):
            # A worker that has never run here before may start now. Its files are left alone.
            names = locks.names(settings.results_dir, workers)
            with _scan(settings, names, lambda _: False) as report:
                faults = faults or report.faults
                # Doubled records and orphaned notes are known only if every file could be read.
                unreadable = report.counts[True, Kind.UNREADABLE]
                if report.repairable and rounds_left and not unreadable:
                    repair.store(settings.results_dir, report)
                    print(f"repaired: {_counts(report, True)}; the store is checked again")
                    continue
                _summarize(report)
                if report.faults:
                    if unreadable:
                        print("make the unreadable files readable or move them away, then repeat")
                    _report_remaining(report)
                    print(f"{report.faults} faults remain")
                    return EX_FAULTS
                break
    if not faults:
        print("the store is sound")
        return 0
    print(f"{faults} faults have been repaired; the store is sound")
    saved = settings.results_dir / segments.DAMAGED_NAME
    if saved.exists():
        print(f"the removed bytes are in {saved}")
    return 0


@contextlib.contextmanager
def _scan(settings: Settings, names: list[str], is_live: Callable[[str], bool]) -> Iterator[Report]:
    """Check the store and print each finding at once."""

    def print_finding(finding: Finding) -> None:
        path = finding.path
        if path.is_relative_to(settings.data_dir):
            path = path.relative_to(settings.data_dir)
        at = "" if finding.offset is None else f" at {finding.offset}"
        word = "fault" if finding.is_fault else "info"
        print(f"{word}: {path}{at}: {finding.kind}: {finding.reason}")

    with contextlib.closing(Report(print_finding, is_live)) as report:
        scan_store.store(settings, names, report)
        yield report


def _report_remaining(report: Report) -> None:
    if report.counts[True, Kind.INCOMPLETE]:
        print("an incomplete result cannot be repaired; delete it: sde delete UUID")


def _summarize(report: Report) -> None:
    print(f"{report.results()} results, {report.size_bytes} bytes in {len(report.sizes)} segments")
    print(f"faults: {_counts(report, True)}")
    print(f"information: {_counts(report, False)}")


def _counts(report: Report, faults: bool) -> str:
    counts = sorted(
        (str(kind), n) for (is_fault, kind), n in report.counts.items() if is_fault is faults
    )
    return ", ".join(f"{n} x {kind}" for kind, n in counts) or "none"


if __name__ == "__main__":
    sys.exit(run())
