"""Locks a store, guards threads, stops at signals, and ends a process with its parent.

The module holds no state.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

_LOCK_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

_PR_SET_PDEATHSIG = 1  # prctl(2), <linux/prctl.h>


class StoreLocked(RuntimeError):
    """Another process holds the store. The text names it."""


class StoreLock:
    """A lock that is held until it is closed or the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> StoreLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self) -> None:
        """Lock the file and write the process id into it. Raises BlockingIOError, OSError."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The pid is a courtesy: a full or read-only disk is no reason to stop.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
            os.fchmod(self._descriptor, 0o600)

    def holder(self) -> str:
        """Return the process id in the file."""
        try:
            text = os.pread(self._descriptor, 64, 0).decode("ascii", "replace")
        except OSError:  # it is a folder
            text = ""
        return text.strip() or "unknown"

    def close(self) -> None:
        """Release the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def lock(path: Path, what: str) -> StoreLock:
    """Lock a file and write the process id into it.

    Raises:
        StoreLocked: another process holds the lock.
        OSError: the file cannot be opened. A link is not followed.
    """
    held = StoreLock(_open_lock(path))
    try:
        held.take()
    except BlockingIOError:
        holder = held.holder()
        held.close()
        raise StoreLocked(f"{what} is held by process {holder} ({path})") from None
    except BaseException:
        held.close()
        raise
    return held


def live_holder(path: Path) -> int | None:
    """Return the live process that a lock names, None without one. The lock is left alone."""
    try:
        pid = int(path.read_text().strip() or 0)
        if pid > 0:
            os.kill(pid, 0)
    except PermissionError:
        return pid
    except (OSError, ValueError):
        return None
    return pid if pid > 0 else None


def _open_lock(path: Path) -> int:
    """Open a lock file. On a read-only disk it is only read, or a folder above it is locked."""
    try:
        descriptor = os.open(path, _LOCK_FLAGS | os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        there = next(place for place in (path, *path.parents) if place.exists())
        if error.errno not in (errno.EROFS, errno.ENOENT) or not _is_read_only(there):
            raise
        return os.open(there, _LOCK_FLAGS | os.O_RDONLY)
    info = os.fstat(descriptor)
    if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
        os.close(descriptor)
        raise OSError(errno.EINVAL, "the lock is not a plain file with one name", str(path))
    return descriptor


def _is_read_only(place: Path) -> bool:
    """Return whether the disk is mounted read-only. Raises OSError."""
    return bool(os.statvfs(place).f_flag & os.ST_RDONLY)


class SignalEvent(threading.Event):
    """An event that a signal handler may set, however many signals come.

    Event.set() holds a lock that is not reentrant. A handler that interrupts another one inside it
    would wait forever, and a stop often comes as two signals: to the group and to the process.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_being_set = False

    def set(self) -> None:
        """Set the event. Only the first call does something."""
        if not self._is_being_set:
            self._is_being_set = True
            super().set()


def start_thread(name: str, run: Callable[[], object]) -> None:
    """Start a daemon thread that never ends. When it does, the process ends with EX_SOFTWARE.

    supervisord then starts the process again. Without its thread it would live and do nothing.
    """

    def guarded() -> None:
        try:
            run()
            log.critical("the thread %s has ended, so this process ends", name)
        except BaseException:
            log.critical("the thread %s has died, so this process ends", name, exc_info=True)
        finally:
            os._exit(os.EX_SOFTWARE)

    threading.Thread(target=guarded, name=name, daemon=True).start()


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
    if os.getppid() == 1 and b"supervisord" not in _first_command():
        raise SystemExit("supervisord is gone")


def _first_command() -> bytes:
    try:
        return Path("/proc/1/cmdline").read_bytes()
    except OSError:
        return b"supervisord"
