"""Writes the result log: appends, repairs, and starts new segments.

Each log has one writer: the worker of that name, or the gateway for jobs that no worker ran.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_worker.contract import output_size
from gpu_worker.store import durable, outcomes, record_line, segments
from gpu_worker.store.durable import AppendFile, DamagedLine, NewerLine, StoreTooNew
from gpu_worker.store.segments import Segment

log = logging.getLogger(__name__)

SEGMENT_BYTES = 64 << 20
"""A segment larger than this is followed by a new one: about 100 images of 512 px."""


class RecordTooLong(ValueError):
    """The record is longer than readers accept. Nothing was written."""


class ResultLog:
    """The log of one writer. It is not thread-safe."""

    def __init__(self, directory: Path, writer: str, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._writer = writer
        self._segment_bytes = segment_bytes
        self._segment = Segment(writer, 1, 1)
        self._file = self._file_of(self._segment)
        self._leaving = False

    @property
    def position(self) -> tuple[str, int]:
        """Return the name of the newest segment and the number of its bytes on the disk."""
        return self._segment.name, self._file.committed

    def open(self) -> None:
        """Open the log for appending. An incomplete outcome at its end is cut and logged.

        Raises:
            StoreTooNew: its newest record is of a newer version.
            OSError: a file cannot be opened, read or cut.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        newest = segments.newest(self._directory, self._writer)
        if newest is not None:
            refuse_newer(self._directory / newest.name)
            number = newest.last + (newest.first != newest.last)  # not a merged one
            self._segment = Segment(self._writer, number, number)
        self._file = self._file_of(self._segment)
        cut = self._file.open()
        if cut:
            log.warning("%s: cut %d bytes of an unfinished outcome", self._file.path.name, cut)

    def append(self, record: dict[str, Any]) -> None:
        """Write a job's only record and flush it to the disk. Raises the errors of append_all()."""
        self.append_all([record])

    def append_all(self, records: Sequence[dict[str, Any]]) -> None:
        """Write all records of one job in order, and flush them to the disk.

        Raises:
            ValueError: the records are not one whole outcome.
            RecordTooLong: a line is longer than readers accept.
            OSError: nothing was written.
        """
        _check_whole(records)
        lines = b"".join(map(_encode, records))
        if not self._file.is_open:
            self.open()
        if self._leaving or self._file.committed >= self._segment_bytes:
            self.rotate()
        self._file.append(lines)

    def rotate(self) -> None:
        """Leave the newest segment as it is and append to a new one.

        Raises:
            OSError: the new segment cannot be created. The next append tries it again, because its
                file may exist already and readers may take the old segment for closed.
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
        """Return whether the newest outcome is that of this job.

        A worker commits a job before it starts the next one, so older outcomes need no check.

        Raises:
            OSError: the segment cannot be read.
        """
        try:
            newest = record_line.parse(durable.last_line(self._file.path))
        except DamagedLine:
            return False
        return newest.uuid == uuid and newest.is_last

    def close(self) -> None:
        """Close the file. Nothing can be appended afterwards."""
        self._file.close()

    def _file_of(self, segment: Segment) -> AppendFile:
        return AppendFile(self._directory / segment.name, outcomes.complete_length)


def refuse_newer(segment: Path) -> None:
    """Raises StoreTooNew if the last record of a segment is of a newer version, or OSError."""
    try:
        record_line.parse(durable.last_line(segment))
    except NewerLine as error:
        raise StoreTooNew(segment, error) from None
    except DamagedLine:
        return


def refuse_newer_in(directory: Path) -> None:
    """Raises StoreTooNew if a segment that is still written is of a newer version, or OSError."""
    for segment in segments.open_segments(segments.live_segments(directory)):
        refuse_newer(directory / segment.name)


def _check_whole(records: Sequence[dict[str, Any]]) -> None:
    """Raises ValueError for half an outcome, which would be cut or never be visible."""
    numbered = [(each.get("image_index", 0), each.get("num_images", 1)) for each in records]
    if not records or numbered != [(number, len(records)) for number in range(len(records))]:
        raise ValueError(f"image_index and num_images of an outcome's records are {numbered}")
    if len({each["uuid"] for each in records}) != 1:
        raise ValueError("the records of an outcome are of several uuids")


def _encode(record: dict[str, Any]) -> bytes:
    """Return the line of a record. Raises RecordTooLong."""
    line = record_line.encode(record)
    if len(line) > output_size.MAX_LINE_BYTES:
        raise RecordTooLong(
            f"its record has {len(line)} bytes, but the log accepts at most "
            f"{output_size.MAX_LINE_BYTES}: request a smaller image"
        )
    return line
