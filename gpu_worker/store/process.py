"""Locks a store, ends a process with its parent, and sets the log format, for both processes.

The module holds no state.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import os
import signal
import sys
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1  # prctl(2), <linux/prctl.h>


class StoreLocked(RuntimeError):
    """Another process holds the store. The text names it."""


def make_directories(*directories: Path) -> None:
    """Create directories for the owner only, because they hold prompts, images and sockets."""
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)


def lock(path: Path, what: str) -> IO[str]:
    """Lock a file and write the process id into it. The lock is held until the file is closed.

    Raises:
        StoreLocked: another process holds the lock.
    """
    file = open(path, "a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise StoreLocked(f"{what} is held by process {holder} ({path})") from None
    with contextlib.suppress(OSError):  # the pid is a courtesy: a full disk is no reason to stop
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
    return file


def exit_with_parent() -> None:
    """Have the kernel send SIGTERM when supervisord dies, so that no orphan stays (prctl(2))."""
    if os.environ.get("SUPERVISOR_ENABLED"):
        end_with_parent()


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies (prctl(2))."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # A parent that died before the call sends no signal; in a container it may itself be PID 1.
    if os.getppid() == 1 and b"supervisord" not in Path("/proc/1/cmdline").read_bytes():
        raise SystemExit("supervisord is gone")


def log_to_stderr() -> None:
    """Log one line for each event, with local time. supervisord rotates the file."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
