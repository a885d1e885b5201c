"""Runs the worker as a child and starts it again: `python -m gpu_worker.launcher`.

supervisord's own pause grows with each early end, without limit, until a process has lived for
`startsecs`. It cannot know whether a worker has served. This process can: it pauses at most
LONGEST_PAUSE_S, and not at all once a job has ended. It also reports why a worker ended, whatever
ended it. It imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from gpu_worker.store import exit_report, log_format, process
from gpu_worker.store.exit_report import ExitReport

PAUSES_S = (0.1, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""From one end to the next start, after the first, second ... failure. The last one repeats."""

LONGEST_PAUSE_S = PAUSES_S[-1]

HEALTHY_S = 600.0
"""A worker that has lived so long is no part of a crash loop, even if nobody sent it a job."""

TAIL_BYTES = 8192
"""How much of what the worker wrote last is searched for the reason of its end."""

MAX_REST_BYTES = 1 << 16
"""More of a line is not held back. What has the form of a secret and is longer is none."""

MAX_REASON_CHARS = 500

SERVED_FD = "GPU_WORKER_SERVED_FD"
LAST_EXIT = "GPU_WORKER_LAST_EXIT"
"""Variables of the child: the pipe for its finished jobs, and how the previous child ended."""

KEYS_OF_OTHERS = ("SDE_KEYS", "SDE_KEY")
"""Variables that the worker does not get: the keys of the gateway and of the client."""

TIMEOUT = "timeout: a step, or a load in which nothing moved, took longer than SDE_STEP_TIMEOUT_S"

_EVENT = re.compile(r"\d{4}-\d\d-\d\d\S* ([A-Z]+) [\w.]+: (.*)")
_FATAL = re.compile(r"Fatal Python error: (.*)")

log = logging.getLogger("gpu_worker.launcher")


def served_reporter(environ: Mapping[str, str]) -> Callable[[], None]:
    """Return a function with which the worker reports a finished job to its launcher, if any."""
    text = environ.get(SERVED_FD, "")
    if not text.isdigit():
        return lambda: None
    descriptor = int(text)
    os.set_inheritable(descriptor, False)
    os.set_blocking(descriptor, False)

    def report() -> None:
        with contextlib.suppress(OSError):
            os.write(descriptor, b".")

    return report


class Launcher:
    """Starts the worker again and again until it is to stop.

    Args:
        command: the worker's own command.
        report: the file of the exit report.
    """

    def __init__(self, command: list[str], report: Path, environ: Mapping[str, str]) -> None:
        self._command = command
        self._report_path = report
        self._environ = {
            name: value for name, value in environ.items() if name not in KEYS_OF_OTHERS
        }
        self._hide = log_format.SecretFilter(environ)
        earlier = exit_report.read(report)
        self._report = ExitReport(earlier.reason, earlier.time, earlier.code)
        self._child: subprocess.Popen[bytes] | None = None
        self._is_stopping = False
        self._wake, self._wake_writer = os.pipe()

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit code."""
        for descriptor in (self._wake, self._wake_writer):
            os.set_blocking(descriptor, False)
        # A signal wakes the loop below; it also comes when the child has ended.
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        exit_report.write(self._report_path, self._report)
        while not self._is_stopping:
            started_at = time.monotonic()
            tail = self._run_child()
            if not self._is_stopping:
                self._pause(self._note_end(tail, time.monotonic() - started_at))
        return 0

    def _stop(self, *_: object) -> None:
        self._is_stopping = True
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()

    def _run_child(self) -> bytes:
        """Run the worker to its end, and return what it has written last."""
        self._child = None
        served, served_writer = os.pipe()
        environ = {**self._environ, SERVED_FD: str(served_writer)}
        if self._report.reason is not None:
            environ[LAST_EXIT] = self._report.reason
        try:
            self._child = subprocess.Popen(
                self._command,
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(served_writer,),
            )
        except OSError as error:
            os.close(served)
            return f"the worker cannot be started: {error.strerror}\n".encode()
        finally:
            os.close(served_writer)
        if self._is_stopping:  # the signal came before there was a child
            self._child.terminate()
        try:
            return self._follow(self._child, served)
        finally:
            os.close(served)

    def _follow(self, child: subprocess.Popen[bytes], served: int) -> bytes:
        """Forward what the child writes until it has ended."""
        assert child.stdout is not None and child.stderr is not None
        with selectors.DefaultSelector() as selector, child.stdout, child.stderr:
            errors = _Output(self._hide)
            outputs = {
                child.stdout.fileno(): _Output(self._hide),
                child.stderr.fileno(): errors,
            }
            for descriptor in (*outputs, served, self._wake):
                os.set_blocking(descriptor, False)
                selector.register(descriptor, selectors.EVENT_READ)
            while True:
                # A process of the child may keep the pipe open, so its end alone is no end.
                has_ended = child.poll() is not None
                events = selector.select(0 if has_ended else None)
                for key, _ in events:
                    content = _read(key.fd)
                    if key.fd in outputs:
                        outputs[key.fd].add(content)
                    elif key.fd == served and content:
                        self._note_served()
                    if not content and key.fd != self._wake:
                        selector.unregister(key.fd)
                if has_ended and not events:
                    for output in outputs.values():
                        output.close()
                    return errors.tail

    def _note_served(self) -> None:
        """Forget the failures: a job has its outcome."""
        if self._report.failures or self._report.reason is not None:
            self._report = ExitReport(restarts=self._report.restarts)
            exit_report.write(self._report_path, self._report)

    def _note_end(self, tail: bytes, lived_s: float) -> float:
        """Report how the child ended, and return the seconds until the next start."""
        code = self._child.returncode if self._child is not None else os.EX_OSERR
        failures = 1 if lived_s >= HEALTHY_S else self._report.failures + 1
        reason = end_reason(code, tail.decode(errors="replace"))
        self._report = ExitReport(
            reason=reason[:MAX_REASON_CHARS],
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            code=code,
            failures=failures,
            restarts=self._report.restarts + 1,
        )
        exit_report.write(self._report_path, self._report)
        pause_s = pause_after(failures, lived_s)
        log.warning("the worker ended and starts again in %.1f s: %s", pause_s, reason)
        return pause_s

    def _pause(self, seconds: float) -> None:
        """Wait, or return as soon as the launcher is to stop."""
        ends = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            while not self._is_stopping and (left := ends - time.monotonic()) > 0:
                if selector.select(left):
                    _read(self._wake)


def pause_after(failures: int, lived_s: float) -> float:
    """Return the seconds between the end of a worker and its next start.

    A worker that has lived for a while has paused by that: a download that fails after a minute
    begins again at once.
    """
    return max(PAUSES_S[0], PAUSES_S[min(failures, len(PAUSES_S)) - 1] - lived_s)


def end_reason(code: int, text: str) -> str:
    """Return a sentence on how a process ended, from its exit code and its last lines."""
    lines = text.splitlines()
    if code == 1 and any(line.startswith("Timeout (") for line in lines):
        return TIMEOUT
    end = f"the process ended with exit code {code}"
    if code == 0:
        return "the process was asked to stop, and ended"
    if code < 0:
        end = f"the process was ended by {_signal_name(-code)}"
    fatal = next((match[1] for line in lines if (match := _FATAL.match(line))), None)
    words = fatal or next(filter(None, map(_words, reversed(lines))), None)
    if words is None or code == -signal.SIGKILL:
        return end
    return f"{end}: {log_format.printable(words)}"


def _words(line: str) -> str | None:
    """Return what a line says of an error; None for an event that is none."""
    event = _EVENT.match(line)
    if event is not None:
        return event[2] if event[1] in ("ERROR", "CRITICAL") else None
    if line.startswith("{"):
        try:
            members = json.loads(line)
        except ValueError:  # the process was ended while it wrote
            return None
        return members["message"] if members.get("level") in ("error", "critical") else None
    is_inner = line[:1].isspace() or line.startswith(("Traceback ", "Thread ", "Extension "))
    return None if is_inner else line.removeprefix("gpu_worker: ").strip() or None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return b""


class _Output:
    """Forwards to stderr what a worker writes to one pipe, line by line and without secrets.

    A reader that has stopped costs what does not fit, and holds nobody up. `tail` is the last of
    what was forwarded.
    """

    def __init__(self, hide: log_format.SecretFilter) -> None:
        self._hide = hide
        self.tail = b""
        self._rest = b""

    def add(self, content: bytes) -> None:
        """Forward all whole lines. A line without an end is forwarded in parts when it is long."""
        *lines, self._rest = (self._rest + content).split(b"\n")
        if lines:
            self._forward(b"\n".join(lines) + b"\n")
        if len(self._rest) > TAIL_BYTES:
            self._forward_part()

    def close(self) -> None:
        """Forward the rest."""
        self._forward(self._rest)
        self._rest = b""

    def _forward_part(self) -> None:
        """Forward the beginning of the rest, up to a place that is in no secret."""
        text = self._rest.decode(errors="surrogateescape")
        end = self._hide.whole_until(text)
        if end == 0 and len(self._rest) > MAX_REST_BYTES:
            end = len(text)
        self._forward(text[:end].encode(errors="surrogateescape"))
        self._rest = text[end:].encode(errors="surrogateescape")

    def _forward(self, content: bytes) -> None:
        text = content.decode(errors="surrogateescape")
        content = self._hide(text).encode(errors="surrogateescape")
        self.tail = (self.tail + content)[-TAIL_BYTES:]
        with contextlib.suppress(OSError):
            log_format.write_all(sys.stderr.fileno(), content)


def main() -> int:
    """Run the worker of SDE_GPU below SDE_DATA_DIR; supervisord sets both."""
    environ = os.environ
    log_format.configure("json" if environ.get("SDE_LOG_FORMAT") == "json" else "text", environ)
    os.umask(0o077)
    process.exit_with_parent()
    run_dir = Path(environ.get("SDE_DATA_DIR") or "data").absolute() / "run"
    report = exit_report.path(run_dir, f"gpu-{environ.get('SDE_GPU', '0')}")
    return Launcher([sys.executable, "-m", "gpu_worker"], report, environ).run()


if __name__ == "__main__":
    sys.exit(main())
