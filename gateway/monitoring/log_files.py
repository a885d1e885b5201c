"""`python -m gateway.monitoring.log_files`: shows the logs of a service on this machine, by time.

supervisord writes and rotates them: `gateway.log` becomes `gateway.log.1`, that becomes `.2`.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from gpu_worker.store.log_format import printable

POLL_S = 0.2

EX_INTERRUPTED = 130
"""128 plus the number of SIGINT, as in bash(1), EXIT STATUS."""

_MOMENT = re.compile(
    r'(?:\{"time": ")?(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d[.,]\d{3})([+-]\d\d:\d\d)?'
)
"""Of our own lines, as text or JSON, and of supervisord's, which have local time."""


class Line(NamedTuple):
    """A line of a log, and the seconds since the epoch of the event that it belongs to."""

    moment: float
    log: str
    text: str


class LogFile:
    """A log that is followed over its rotations."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        self._file: BinaryIO | None = None
        self._rest = b""
        self._moment = 0.0

    def last(self, count: int) -> list[Line]:
        """Return the last lines, some of them from rotated files. read() returns what follows."""
        lines = self.read()
        inode = self._inode()
        for path in self._backups():
            if len(lines) >= count:
                break
            with contextlib.suppress(OSError), open(path, "rb") as file:
                if os.fstat(file.fileno()).st_ino != inode:
                    self._moment = 0.0
                    lines = [*self._lines(file.read().splitlines()), *lines]
        return lines[-count:] if count else []

    def read(self) -> list[Line]:
        """Return the whole lines that have been added, those before a rotation too."""
        lines: list[Line] = []
        while True:
            if self._file is None and not self._open(self.path):
                return lines
            lines += self._read_file()
            successor = self._successor()
            if successor is None:
                return lines
            # What was written between the last read and the rotation.
            lines += self._read_file()
            if self._rest:
                lines += self._lines([self._rest])
            self._rest = b""
            if not self._open(successor):
                return lines

    def close(self) -> None:
        """Close the open file."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _read_file(self) -> list[Line]:
        assert self._file is not None
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)  # it was emptied in place
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        return self._lines(whole)

    def _lines(self, contents: Sequence[bytes]) -> list[Line]:
        lines = []
        for content in contents:
            text = content.decode(errors="backslashreplace")
            self._moment = _moment(text) or self._moment
            lines.append(Line(self._moment, self.name, printable(text)))
        return lines

    def _open(self, path: Path) -> bool:
        self.close()
        with contextlib.suppress(OSError):
            self._file = open(path, "rb")
        return self._file is not None

    def _inode(self) -> int | None:
        return None if self._file is None else os.fstat(self._file.fileno()).st_ino

    def _backups(self) -> list[Path]:
        """Return the rotated files, the newest first."""
        backups = self.path.parent.glob(f"{self.path.name}.*")
        numbers = sorted(int(path.suffix[1:]) for path in backups if path.suffix[1:].isdigit())
        return [self.path.with_name(f"{self.path.name}.{number}") for number in numbers]

    def _successor(self) -> Path | None:
        """Return the file after the open one; None if it is the newest."""
        inode, newer = self._inode(), None
        for path in (self.path, *self._backups()):
            try:
                is_open = path.stat().st_ino == inode
            except OSError:
                continue
            if is_open:
                return newer
            newer = path
        return newer  # the open file is gone, and this is the oldest one that is left


def _moment(text: str) -> float | None:
    match = _MOMENT.match(text)
    if match is None:
        return None
    moment = f"{match[1]}T{match[2].replace(',', '.')}{match[3] or ''}"
    try:
        return datetime.fromisoformat(moment).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        return None


class Logs:
    """The logs of a run/ folder. Logs that appear later are shown from their beginning."""

    def __init__(self, run_dir: Path, names: Sequence[str]) -> None:
        self._run_dir = run_dir
        self._names = names
        self._files: dict[str, LogFile] = {}

    def last(self, count: int) -> list[Line]:
        """Return the last lines of all logs together, in the order of time."""
        lines = heapq.merge(*(file.last(count) for file in self._discover()), key=_by_time)
        return list(lines)[-count:] if count else []

    def added(self) -> list[Line]:
        """Return the lines that have been added since the last call."""
        self._discover()
        return list(heapq.merge(*(file.read() for file in self._files.values()), key=_by_time))

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()

    def _discover(self) -> list[LogFile]:
        """Return the logs that are new."""
        paths = sorted(self._run_dir.glob("*.log"))
        names = [path.stem for path in paths if not self._names or path.stem in self._names]
        new = {name: LogFile(self._run_dir / f"{name}.log") for name in names}
        new = {name: file for name, file in new.items() if name not in self._files}
        self._files |= new
        return list(new.values())


def _by_time(line: Line) -> float:
    return line.moment


def show(logs: Logs, count: int, *, follow: bool) -> Iterator[str]:
    """Yield the lines for a terminal, with the name of their log; with `follow` without an end."""
    lines = logs.last(count)
    while True:
        for line in lines:
            yield f"{line.log:<10} {line.text}"
        if not follow:
            return
        sys.stdout.flush()
        time.sleep(POLL_S)
        lines = logs.added()


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Print the logs; return 66 if there are none."""
    parser = argparse.ArgumentParser(prog="sde logs", description="Show the logs of a service.")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new lines")
    parser.add_argument("-n", "--lines", type=int, default=50, help="how many; default: 50")
    parser.add_argument("--data-dir", help="default: SDE_DATA_DIR, else ./data")
    parser.add_argument("names", nargs="*", help="gateway, gpu-0 or supervisord; default: all")
    options = parser.parse_args(arguments)
    data_dir = options.data_dir or environ.get("SDE_DATA_DIR") or "data"
    run_dir = Path(data_dir).absolute() / "run"
    names = sorted(path.stem for path in run_dir.glob("*.log"))
    missing = sorted(set(options.names) - set(names))
    if not names or missing:
        what = f"no log named {missing[0]!r}" if names else "no logs"
        others = f"; there are {', '.join(names)}" if names else ""
        print(f"sde logs: {run_dir} has {what}{others}", file=sys.stderr)
        return os.EX_NOINPUT
    logs = Logs(run_dir, options.names)
    try:
        for text in show(logs, options.lines, follow=options.follow):
            print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone. Without this the interpreter reports it again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        logs.close()
    return os.EX_OK


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        sys.exit(main(sys.argv[1:], os.environ))
    except KeyboardInterrupt:
        sys.exit(EX_INTERRUPTED)
