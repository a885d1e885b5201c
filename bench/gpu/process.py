"""Runs a part in processes of its own, each case under its time limit, and keeps every result.

A process that hangs is killed, and one that dies is replaced; its case gets the sentence.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from bench.gpu.ledger import Ledger, Line

START_S = 180.0
"""How long the imports of a process and the start of the card may take."""

START = "start of the process"
ANOTHER_PROCESS = os.EX_TEMPFAIL
"""The exit code of a part whose next case needs a new process."""

PATIENCE = 6
"""Without a real card every limit is so many times as long."""

MARK = "BENCH_GPU_RUN"
"""The variable of the environment by which a run knows every process that it has started."""

MAX_WORDS_CHARS = 300


@dataclass
class Ending:
    """How a process ended: the case that it was in, and why it was killed.

    `results` is how many cases it has finished.
    """

    case: str | None = START
    reason: str = ""
    is_cut: bool = False
    results: int = 0
    code: int = 0


@dataclass
class PartProcess:
    """The processes of one part, one after another.

    `deadline` is the monotonic time at which the part must be over.
    """

    part: str
    results: Path
    work: Path
    log: Path
    deadline: float
    report: Callable[[Line], None]
    pattern: str = ""
    """A regular expression; only cases whose names match it are run."""

    def run(self) -> bool:
        """Run the part's cases that have no result; return whether none is left.

        A case that is cut off by the deadline has no result, and a later run begins it again.
        """
        while True:
            ending = self._process()
            if ending.is_cut:
                return False
            if ending.code == 0 and not ending.reason:
                return True
            if ending.case is None and ending.results:
                continue  # it ended between two cases, or asks for another process
            how = f"the process ended {_how(ending.code)} in this case{self._last_words()}"
            self._note(Line(self.part, ending.case or START, problems=[ending.reason or how]))
            if ending.case in (None, START):
                return True

    def _process(self) -> Ending:
        """Run one process to its end."""
        arguments = (self.part, self.results, self.work, self.pattern)
        mark = f"{os.getpid()}.{time.monotonic_ns()}"
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "bench.gpu.part", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | {MARK: mark},
            )
        lines: queue.Queue[bytes | None] = queue.Queue()
        assert child.stdout is not None
        reader = threading.Thread(target=_forward, args=(child.stdout, lines), daemon=True)
        reader.start()
        try:
            ending = self._follow(child, lines)
        finally:
            if child.poll() is None:
                child.kill()
            code = child.wait()
            _end_all(mark)
            reader.join()
        ending.code = code
        return ending

    def _follow(self, child: subprocess.Popen[bytes], lines: queue.Queue[bytes | None]) -> Ending:
        """Note the results until the process ends or must be killed."""
        ending, limit_s = Ending(), START_S
        ends = time.monotonic() + limit_s
        while True:
            try:
                text = lines.get(timeout=max(0.0, min(ends, self.deadline) - time.monotonic()))
            except queue.Empty:
                ending.is_cut = time.monotonic() >= self.deadline
                ending.reason = f"it did not end within {limit_s:g} s and was killed"
                return ending
            if text is None:
                child.wait()
                return ending
            value = json.loads(text)
            if "begin" in value:
                ending.case, limit_s = value["begin"], value["limit_s"]
            else:
                ending.case, limit_s = None, START_S
                ending.results += 1
                self._note(Line(**value))
            ends = time.monotonic() + limit_s

    def _note(self, line: Line) -> None:
        Ledger(self.results).append(line)
        self.report(line)

    def _last_words(self) -> str:
        """Return the last line of the log, where a process says why it ends."""
        lines = self.log.read_text(errors="replace").split("\n") if self.log.exists() else []
        words = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f": {words[:MAX_WORDS_CHARS]}" if words else ""


def _forward(stream: IO[bytes], lines: queue.Queue[bytes | None]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def _end_all(mark: str) -> None:
    """Kill what a process has started and left, such as a service with its workers."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                process.kill()
        except psutil.Error:
            continue


def _how(code: int) -> str:
    return f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
