"""The writer's side of the result log: append, repair, begin a new segment.

One writer a log: the worker of that name, or the gateway for jobs that no worker ran.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_worker.contract import output_size
from gpu_worker.store import durable, outcomes, record_line, segments
from gpu_worker.store.durable import AppendFile, DamagedLine
from gpu_worker.store.segments import Segment

log = logging.getLogger(__name__)

SEGMENT_BYTES = 64 << 20
"""A segment that has grown past this is followed by a new one: about 100 pictures of 512 px."""


class RecordTooLong(ValueError):
    """A record that no reader would take for one; nothing was written."""


class ResultLog:
    """Appends to the newest segment. Not thread-safe: one thread appends."""

    def __init__(self, directory: Path, writer: str, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._writer = writer
        self._segment_bytes = segment_bytes
        self._segment = Segment(writer, 1, 1)
        self._file = self._file_of(self._segment)
        self._leaving = False

    @property
    def position(self) -> tuple[str, int]:
        """The newest segment's name and how many bytes of it are on disk for good."""
        return self._segment.name, self._file.committed

    def open(self) -> None:
        """Open for append; an outcome that a crash has left unfinished, be it a torn line or some
        lines of several, is cut as a whole and reported.

        Raises:
            OSError: a file cannot be opened, read or cut.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        newest = segments.newest(self._directory, self._writer)
        if newest is not None:
            number = newest.last + (newest.first != newest.last)  # merged ones are not ours
            self._segment = Segment(self._writer, number, number)
        self._file = self._file_of(self._segment)
        cut = self._file.open()
        if cut:
            log.warning("%s: cut %d bytes of an unfinished outcome", self._file.path.name, cut)

    def append(self, record: dict[str, Any]) -> None:
        """Write a job's only record and have it on disk. Raises as append_all() does."""
        self.append_all([record])

    def append_all(self, records: Sequence[dict[str, Any]]) -> None:
        """Write all records of one job, in their order, and have them on disk; all or nothing.

        Raises:
            ValueError: they are no whole outcome: of one uuid, numbered 0 to N-1 of N.
            LineTooLong: a record's line is longer than readers take.
            OSError: they are not there; the log is as it was.
        """
        _check_whole(records)
        lines = b"".join(map(_encode, records))
        if not self._file.is_open:
            self.open()
        if self._leaving or self._file.committed >= self._segment_bytes:
            self.rotate()
        self._file.append(lines)

    def rotate(self) -> None:
        """Leave the newest segment as it is and append to a new one from now on.

        Raises:
            OSError: the new one cannot be made. It is tried again before the next append: its
                file may be there already, and the old one be taken for sealed.
        """
        if not self._file.committed:
            return
        self._leaving = True
        number = self._segment.last + 1
        following = Segment(self._writer, number, number)
        file = self._file_of(following)
        file.open()
        self._file.close()
        self._segment, self._file, self._leaving = following, file, False

    def ends_with(self, uuid: str) -> bool:
        """Whether the newest outcome is this one's: a job in flight that has it.

        A worker commits a job before it begins the next, so no further look back is needed.

        Raises:
            OSError: the segment cannot be read.
        """
        try:
            newest = record_line.parse(durable.last_line(self._file.path))
        except DamagedLine:
            return False
        return newest.uuid == uuid and newest.is_last

    def close(self) -> None:
        """Close the file; appending afterwards is an error."""
        self._file.close()

    def _file_of(self, segment: Segment) -> AppendFile:
        return AppendFile(self._directory / segment.name, outcomes.complete_length)


def _check_whole(records: Sequence[dict[str, Any]]) -> None:
    """Raises ValueError: half an outcome would be cut at the next start, or never be shown."""
    numbered = [(each.get("image_index", 0), each.get("num_images", 1)) for each in records]
    if not records or numbered != [(number, len(records)) for number in range(len(records))]:
        raise ValueError(f"image_index and num_images of an outcome's records are {numbered}")
    if len({each["uuid"] for each in records}) != 1:
        raise ValueError("the records of an outcome are of several uuids")


def _encode(record: dict[str, Any]) -> bytes:
    """Raises LineTooLong."""
    line = record_line.encode(record)
    if len(line) > output_size.MAX_LINE_BYTES:
        raise RecordTooLong(
            f"its record has {len(line)} bytes, but the log accepts at most "
            f"{output_size.MAX_LINE_BYTES}: request a smaller image"
        )
    return line
