"""Reads a record where it stood when somebody last looked, and saves asking the index. A leaf.

What is remembered is a hint: the line itself says whose it is, and its checksum that it is whole.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from gateway.store import record_reader
from gateway.store.open_segments import OpenSegments
from gpu_worker.store.durable import DamagedLine

_MOST = 4096
"""About 1 MiB. A page polls the few jobs that it has just sent."""


class ShortCut:
    """Thread-safe.

    Args:
        where: segment, offset and length of a job's first record, or None.
    """

    def __init__(
        self, segments: OpenSegments, where: Callable[[str], tuple[str, int, int] | None]
    ) -> None:
        self._segments = segments
        self._where = where
        self._places: dict[str, tuple[str, int, int]] = {}

    def read(self, uuid: str) -> bytes | None:
        """A job's first record, verified, without newline; None where a closer look is needed."""
        places = self._places
        at = places.get(uuid)
        try:
            if at is None:
                at = self._where(uuid)
                if at is None:
                    return None
                if len(places) >= _MOST:
                    places.clear()
                places[uuid] = at
            return record_reader.line_at(self._segments, uuid, *at)
        except (OSError, DamagedLine, sqlite3.DatabaseError):
            places.pop(uuid, None)
            return None

    def forget(self) -> None:
        """Something has been deleted. Who looks just now remembers it where nobody looks again."""
        self._places = {}
