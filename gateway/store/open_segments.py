"""Keeps the segments that are read open: opening costs more than reading a small record. A leaf."""

from __future__ import annotations

import os
import threading
from pathlib import Path

_MOST = 64


class _Descriptor:
    """Closed when its last user lets go of it: a segment may be removed while somebody reads it."""

    __slots__ = ("number",)

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class OpenSegments:
    """The segments of one directory. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._prefix = f"{directory}/"
        self._lock = threading.Lock()
        self._open: dict[str, _Descriptor] = {}

    def read(self, name: str, *parts: tuple[int, int]) -> list[bytes]:
        """`(offset, length)` parts of a segment; shorter ones where it ends.

        Raises:
            OSError: it is not there or cannot be read.
        """
        segment = self._open.get(name) or self._opened(name)
        return [os.pread(segment.number, length, offset) for offset, length in parts]

    def read_one(self, name: str, offset: int, length: int) -> bytes:
        """As read(), of one part. Raises OSError."""
        segment = self._open.get(name) or self._opened(name)
        return os.pread(segment.number, length, offset)

    def forget(self, *names: str) -> None:
        """They have been replaced or removed; all of them when none is named."""
        with self._lock:
            for name in names or list(self._open):
                self._open.pop(name, None)

    def _opened(self, name: str) -> _Descriptor:
        fresh = _Descriptor(self._prefix + name)
        with self._lock:
            while len(self._open) >= _MOST:
                self._open.pop(next(iter(self._open)))
            self._open[name] = fresh
        return fresh
