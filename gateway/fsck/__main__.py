"""`python -m gateway.fsck`: checks the store of a service on this machine, and mends it.

Says what gateway/fsck/scan_store.py finds; with --fix it holds every lock while mend.py works.
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
from gpu_worker.store.process import StoreLocked

EX_FAULTS = 1
"""The store has faults, as fsck(8) of other stores exits."""

EX_INTERRUPTED = 130
"""128 and the number of SIGINT, as a shell reports it (bash(1), exit status)."""


ROUNDS = 3
"""One fault may hide another (a doubled record, the note of its job): mended store, next look."""


def run() -> int:
    """The process: its arguments, its environment, Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return main(sys.argv[1:], os.environ)
    except KeyboardInterrupt:
        return EX_INTERRUPTED


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Check, and mend with --fix. The exit code: 0 sound or mended, 1 faults, 66 no such store,
    74 the disk does not take it, 75 a running service holds a lock."""
    parser = argparse.ArgumentParser(prog="sde fsck", description="Check a service's store.")
    parser.add_argument("--fix", action="store_true", help="mend it; the service must be stopped")
    parser.add_argument("--data-dir", help="default: SDE_DATA_DIR, else ./data")
    options = parser.parse_args(arguments)
    data_dir = options.data_dir or environ.get("SDE_DATA_DIR")
    settings = Settings.model_validate({"SDE_DATA_DIR": data_dir} if data_dir else {})
    if not settings.results_dir.is_dir() and not settings.journal_path.exists():
        return _fail(f"there is no store in {settings.data_dir}", os.EX_NOINPUT)
    try:
        code = _fix(settings) if options.fix else _check(settings)
        sys.stdout.flush()
        return code
    except StoreLocked as error:
        return _fail(f"stop the service first: {error}", os.EX_TEMPFAIL)
    except BrokenPipeError:
        # Nobody reads on. The interpreter would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EX_FAULTS
    except (OSError, sqlite3.Error) as error:
        return _fail(str(error), os.EX_IOERR)


def _fail(sentence: str, code: int) -> int:
    print(f"sde fsck: {sentence}", file=sys.stderr)
    return code


def _check(settings: Settings) -> int:
    def is_live(writer: str) -> bool:
        return locks.is_live(settings, writer)

    with _scan(settings, locks.names(settings.results_dir), is_live) as survey:
        _summarize(survey)
        if not survey.faults:
            print("the store is sound")
            return 0
        if survey.mendable:
            print("stop the service and run: sde fsck --fix")
        _report_remaining(survey)
        return EX_FAULTS


def _fix(settings: Settings) -> int:
    os.umask(0o077)
    with ExitStack() as lock_stack:
        workers = locks.hold_all(settings, lock_stack)
        faults = 0
        for rounds_left in reversed(range(ROUNDS)):
            # A worker that was never here before may start now; its files are its own.
            names = locks.names(settings.results_dir, workers)
            with _scan(settings, names, lambda _: False) as survey:
                faults = faults or survey.faults
                # What is doubled, orphaned or nowhere else is known only when all could be read.
                unreadable = survey.counts[True, Kind.UNREADABLE]
                if survey.mendable and rounds_left and not unreadable:
                    repair.store(settings.results_dir, survey)
                    print(f"mended: {_counts(survey, True)}; looking again")
                    continue
                _summarize(survey)
                if survey.faults:
                    if unreadable:
                        print("make readable, or move away, what cannot be read, and run it again")
                    _report_remaining(survey)
                    print(f"{survey.faults} faults are left")
                    return EX_FAULTS
                break
    if not faults:
        print("the store is sound")
        return 0
    print(f"{faults} faults have been mended, the store is sound")
    saved = settings.results_dir / scan_store.DAMAGED_NAME
    if saved.exists():
        print(f"what was taken out is kept in {saved}")
    return 0


@contextlib.contextmanager
def _scan(settings: Settings, names: list[str], is_live: Callable[[str], bool]) -> Iterator[Report]:
    """Examine, and print each finding at once."""

    def say(finding: Finding) -> None:
        path = finding.path
        if path.is_relative_to(settings.data_dir):
            path = path.relative_to(settings.data_dir)
        at = "" if finding.offset is None else f" at {finding.offset}"
        word = "fault" if finding.is_fault else "info"
        print(f"{word}: {path}{at}: {finding.kind}: {finding.reason}")

    with contextlib.closing(Report(say, is_live)) as survey:
        scan_store.store(settings, names, survey)
        yield survey


def _report_remaining(survey: Report) -> None:
    if survey.counts[True, Kind.INCOMPLETE]:
        print("what is incomplete stays so until it is deleted: sde delete UUID")


def _summarize(survey: Report) -> None:
    print(f"{survey.results()} results, {survey.size_bytes} bytes in {len(survey.sizes)} segments")
    print(f"faults: {_counts(survey, True)}")
    print(f"information: {_counts(survey, False)}")


def _counts(survey: Report, faults: bool) -> str:
    counts = sorted(
        (str(kind), n) for (is_fault, kind), n in survey.counts.items() if is_fault is faults
    )
    return ", ".join(f"{n} x {kind}" for kind, n in counts) or "none"


if __name__ == "__main__":
    sys.exit(run())
