"""Reads one record, or a part of it, from its place in a segment."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import orjson

from gateway.store.index_db import Entry
from gpu_worker.store import record_line
from gpu_worker.store.durable import DamagedLine
from gpu_worker.store.record_line import ParsedLine

_NULL = b"null"


def entry(segment: str, offset: int, length: int, parsed: ParsedLine) -> Entry:
    """Return the index entry of a parsed line."""
    return Entry(
        parsed.uuid,
        parsed.image_index,
        parsed.num_images,
        parsed.sequence,
        parsed.state,
        segment,
        offset,
        length,
        parsed.data_at,
        parsed.data_length,
        parsed.submission,
    )


def whole(segments: SegmentFiles, at: Entry) -> bytes:
    """Return the verified record without its newline. Raises DamagedLine, OSError."""
    text = line_at(segments, at.uuid, at.segment, at.offset, at.length)
    _check_number(text, _behind_data(at), at)
    return text


def line_at(segments: SegmentFiles, uuid: str, segment: str, offset: int, length: int) -> bytes:
    """Return a record as whole() does, by its location alone. Raises DamagedLine, OSError."""
    text = segments.read_one(segment, offset, length)
    record_line.verify(text, uuid)
    return text[:-1]


def without_data(segments: SegmentFiles, at: Entry) -> bytes:
    """Return the record with `data` null; its image is not read. Raises DamagedLine, OSError."""
    quotes = 1 if at.data_length else 0
    behind = _behind_data(at)
    head, tail = segments.read(
        at.segment,
        (at.offset, at.data_at - quotes),
        (at.offset + behind, at.length - behind),
    )
    if not record_line.begins(head, at.uuid) or not tail.endswith(b"}\n"):
        raise DamagedLine(f"is another record than {at.uuid}")
    _check_number(tail, 0, at)
    text = head + _NULL + tail[:-1]
    try:
        # The checksum needs the whole line. JSON syntax can be checked without the image.
        orjson.loads(text)
    except orjson.JSONDecodeError:
        raise DamagedLine("is not JSON") from None
    return text


def data(segments: SegmentFiles, at: Entry) -> bytes:
    """Return the base64 text of the image, empty without one. Raises DamagedLine, OSError."""
    text = whole(segments, at)
    return text[at.data_at : at.data_at + at.data_length]


def _behind_data(at: Entry) -> int:
    return at.data_at + (at.data_length + len('"') if at.data_length else len(_NULL))


def _check_number(text: bytes, behind_data: int, at: Entry) -> None:
    """Refuse another image of the job, which an index older than its segment may name."""
    if record_line.image_index(text, behind_data) != at.image_index:
        raise DamagedLine(f"is another image of {at.uuid}")


_MAX_OPEN = 64


class _Descriptor:
    """A file descriptor that its last user closes: a segment may be removed while it is read."""

    __slots__ = ("number",)

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class SegmentFiles:
    """The segments of one directory. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._prefix = f"{directory}/"
        self._lock = threading.Lock()
        self._open: dict[str, _Descriptor] = {}

    def read(self, name: str, *parts: tuple[int, int]) -> list[bytes]:
        """Return `(offset, length)` parts of a segment. A part is shorter where the segment ends.

        Raises:
            OSError: the segment does not exist or cannot be read.
        """
        segment = self._open.get(name) or self._opened(name)
        return [os.pread(segment.number, length, offset) for offset, length in parts]

    def read_one(self, name: str, offset: int, length: int) -> bytes:
        """Return one part of a segment. Raises OSError."""
        segment = self._open.get(name) or self._opened(name)
        return os.pread(segment.number, length, offset)

    def forget(self, *names: str) -> None:
        """Close segments that were replaced or removed; without names, all of them."""
        with self._lock:
            for name in names or list(self._open):
                self._open.pop(name, None)

    def _opened(self, name: str) -> _Descriptor:
        descriptor = _Descriptor(self._prefix + name)
        with self._lock:
            while len(self._open) >= _MAX_OPEN:
                self._open.pop(next(iter(self._open)))
            self._open[name] = descriptor
        return descriptor


_MAX_LOCATIONS = 4096
"""About 1 MiB. A client polls the few jobs that it has just sent."""


class LocationCache:
    """Caches where the first records of jobs are. Thread-safe.

    Args:
        locate: returns segment, offset and length of a job's first record, or None.
    """

    def __init__(
        self, segments: SegmentFiles, locate: Callable[[str], tuple[str, int, int] | None]
    ) -> None:
        self._segments = segments
        self._locate = locate
        self._locations: dict[str, tuple[str, int, int]] = {}

    def read(self, uuid: str) -> bytes | None:
        """Return a job's first record, verified, without newline; None: ask the index."""
        locations = self._locations
        at = locations.get(uuid)
        try:
            if at is None:
                at = self._locate(uuid)
                if at is None:
                    return None
                if len(locations) >= _MAX_LOCATIONS:
                    locations.clear()
                locations[uuid] = at
            return line_at(self._segments, uuid, *at)
        except (OSError, DamagedLine, sqlite3.DatabaseError):
            locations.pop(uuid, None)
            return None

    def forget(self) -> None:
        """Empty the cache after a deletion. A concurrent reader fills the old, unused one."""
        self._locations = {}
