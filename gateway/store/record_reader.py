"""Reads one record, or a part of it, from its place in a segment."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import orjson

from gateway.store.index_db import Entry
from gateway.store.stored_bytes import Descriptor, StoredBytes
from gpu_worker.store import durable, record_line
from gpu_worker.store.durable import DamagedLine
from gpu_worker.store.record_line import ParsedLine

_NULL = b"null"

_HEAD_BYTES, _INDEXED_BYTES = 64, 1024
"""More than a record has before its prompt, and between its image and its other metadata."""

_RECENT_S, _MAX_RECENT = 60.0, 1024
"""How long, and of how many records, a check of a checksum counts while the file is unchanged."""


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


def stored(segments: SegmentFiles, at: Entry) -> StoredBytes:
    """Return the verified record as whole() does, without having all of it in memory.

    Raises:
        DamagedLine, OSError: as for whole().
    """
    line = segments.stored(at.segment, at.offset, at.length)
    head = line.read(0, _HEAD_BYTES)
    _recent.verify(line, head)
    if not record_line.begins(head, at.uuid):
        raise DamagedLine(f"is another record than {at.uuid}")
    behind = _behind_data(at)
    _check_number(line.read(behind, behind + _INDEXED_BYTES), 0, at)
    return line.part(0, at.length - 1)


class _RecentChecks:
    """Verifies large records, two at a time, and each once a minute. Thread-safe.

    Many clients that read one image at once would else keep every core busy with its checksum.
    """

    def __init__(self) -> None:
        self._turns = threading.BoundedSemaphore(2)
        self._verified: dict[tuple[int, ...], float] = {}

    def verify(self, line: StoredBytes, head: bytes) -> None:
        """Raises DamagedLine if the record differs from what was written, OSError."""
        identity, now = line.identity(), time.monotonic()
        if now - self._verified.get(identity, -_RECENT_S) < _RECENT_S:
            return
        with self._turns:
            # Another thread may have verified it meanwhile, and one may have dropped the table.
            if now - self._verified.get(identity, -_RECENT_S) >= _RECENT_S:
                _verify(line, head)
        if len(self._verified) >= _MAX_RECENT:
            self._verified = {}
        self._verified[identity] = now


def _verify(line: StoredBytes, head: bytes) -> None:
    end, checksum = max(0, len(line) - durable.TAIL_BYTES), 0
    for piece in line.part(0, end).pieces():
        checksum = zlib.crc32(piece, checksum)
    durable.verify_parts(head[:1], line.read(end, len(line)), checksum)


_recent = _RecentChecks()


def stored_data(segments: SegmentFiles, at: Entry) -> StoredBytes:
    """Return the base64 text of the image as data() does. Raises DamagedLine, OSError."""
    return stored(segments, at).part(at.data_at, at.data_at + at.data_length)


def _behind_data(at: Entry) -> int:
    return at.data_at + (at.data_length + len('"') if at.data_length else len(_NULL))


def _check_number(text: bytes, behind_data: int, at: Entry) -> None:
    """Refuse another image of the job, which an index older than its segment may name."""
    if record_line.image_index(text, behind_data) != at.image_index:
        raise DamagedLine(f"is another image of {at.uuid}")


_MAX_OPEN = 64


class SegmentFiles:
    """The segments of one directory. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._prefix = f"{directory}/"
        self._lock = threading.Lock()
        self._open: dict[str, Descriptor] = {}

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

    def stored(self, name: str, offset: int, length: int) -> StoredBytes:
        """Return a part of a segment that is read later. Raises OSError."""
        return StoredBytes(self._open.get(name) or self._opened(name), offset, length)

    def forget(self, *names: str) -> None:
        """Close segments that were replaced or removed; without names, all of them."""
        with self._lock:
            for name in names or list(self._open):
                self._open.pop(name, None)

    def _opened(self, name: str) -> Descriptor:
        descriptor = Descriptor(self._prefix + name)
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
