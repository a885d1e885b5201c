"""Notices whether a worker that loads a model makes progress, from counters of the kernel.

It asks no library, so it also sees what a library downloads or reads in threads of its own.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_DOWNLOADS = "models--*/blobs/*.incomplete"
"""The files of the hub library while they grow (huggingface_hub, file_download.py)."""

_RESIDENT_CHANGE_BYTES = 1 << 20
"""The other threads of an idle worker change its memory by less."""

_PROCESS = Path("/proc/self")


class Movement:
    """The movement of bytes since the last call. Without a /proc only downloads count.

    The main thread must not call it, because its own reading of /proc would count.
    """

    def __init__(self, hub_cache: Path) -> None:
        self._hub_cache = hub_cache
        self._counters = self._count()
        self._resident_bytes = resident_bytes() or 0

    def __call__(self) -> bool:
        """Return whether the main thread has read or written, or a download or the memory grew.

        A memory-mapped file is in the memory once it has been read.
        """
        counters, size_bytes = self._count(), resident_bytes() or 0
        has_resized = abs(size_bytes - self._resident_bytes) >= _RESIDENT_CHANGE_BYTES
        if has_resized:
            self._resident_bytes = size_bytes
        has_moved = has_resized or counters != self._counters
        self._counters = counters
        return has_moved

    def _count(self) -> tuple[int, int]:
        return _main_thread_bytes(), _downloaded_bytes(self._hub_cache)


def _main_thread_bytes() -> int:
    """Return what the main thread has read and written (proc(5), io: rchar and wchar)."""
    try:
        lines = (_PROCESS / "task" / str(os.getpid()) / "io").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(("rchar", "wchar")))
    except (OSError, ValueError, IndexError):
        return 0


def _downloaded_bytes(hub_cache: Path) -> int:
    """Return the bytes of unfinished downloads. A file may have its full size with gaps."""
    total = 0
    # A file may be finished meanwhile, and a process may lack a descriptor to list the folder.
    with contextlib.suppress(OSError):
        for path in hub_cache.glob(_DOWNLOADS):
            with contextlib.suppress(OSError):
                info = path.stat()
                total += info.st_size + info.st_blocks * 512
    return total


def resident_bytes() -> int | None:
    """Return the resident memory of this process (proc(5), statm); None where it is unknown.

    It is unknown on macOS, where /proc is hidden, and while no file can be opened.
    """
    try:
        pages = int((_PROCESS / "statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
