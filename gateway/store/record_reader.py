"""Reads one record, or a part of it, from its place in a segment. A leaf."""

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


def entry(segment: str, offset: int, length: int, drawn: ParsedLine) -> Entry:
    """The index's entry of a line that was read there."""
    return Entry(
        drawn.uuid,
        drawn.image_index,
        drawn.num_images,
        drawn.sequence,
        drawn.state,
        segment,
        offset,
        length,
        drawn.data_at,
        drawn.data_length,
        drawn.submission,
    )


def whole(segments: SegmentFiles, at: Entry) -> bytes:
    """The record without its newline, verified. Raises DamagedLine, OSError."""
    text = line_at(segments, at.uuid, at.segment, at.offset, at.length)
    _check_number(text, _behind_data(at), at)
    return text


def line_at(segments: SegmentFiles, uuid: str, segment: str, offset: int, length: int) -> bytes:
    """As whole(), of a record whose parts are not known. Raises DamagedLine, OSError."""
    text = segments.read_one(segment, offset, length)
    record_line.verify(text, uuid)
    return text[:-1]


def without_data(segments: SegmentFiles, at: Entry) -> bytes:
    """The record with `data` null; its picture is not read. Raises DamagedLine, OSError."""
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
        # The checksum is of the whole line; that it still is JSON can be told without the picture.
        orjson.loads(text)
    except orjson.JSONDecodeError:
        raise DamagedLine("is not JSON") from None
    return text


def data(segments: SegmentFiles, at: Entry) -> bytes:
    """The base64 text of the picture, empty when there is none. Raises DamagedLine, OSError."""
    text = whole(segments, at)
    return text[at.data_at : at.data_at + at.data_length]


def _behind_data(at: Entry) -> int:
    return at.data_at + (at.data_length + len('"') if at.data_length else len(_NULL))


def _check_number(text: bytes, behind_data: int, at: Entry) -> None:
    """An index that is older than its segment may know another picture of the job at this place."""
    if record_line.image_index(text, behind_data) != at.image_index:
        raise DamagedLine(f"is another picture of {at.uuid}")


_MAX_OPEN = 64


class _Descriptor:
    """Closed when its last user lets go of it: a segment may be removed while somebody reads it."""

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
            while len(self._open) >= _MAX_OPEN:
                self._open.pop(next(iter(self._open)))
            self._open[name] = fresh
        return fresh


_MAX_LOCATIONS = 4096
"""About 1 MiB. A page polls the few jobs that it has just sent."""


class LocationCache:
    """Thread-safe.

    Args:
        where: segment, offset and length of a job's first record, or None.
    """

    def __init__(
        self, segments: SegmentFiles, where: Callable[[str], tuple[str, int, int] | None]
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
                if len(places) >= _MAX_LOCATIONS:
                    places.clear()
                places[uuid] = at
            return line_at(self._segments, uuid, *at)
        except (OSError, DamagedLine, sqlite3.DatabaseError):
            places.pop(uuid, None)
            return None

    def forget(self) -> None:
        """Something has been deleted. Who looks just now remembers it where nobody looks again."""
        self._places = {}
