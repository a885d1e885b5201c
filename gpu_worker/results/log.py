"""The writer's side of the result log: append, repair, begin a new segment. A leaf.

One writer a log: the worker of that name, or the gateway for jobs that no worker ran.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from gpu_worker import durable
from gpu_worker.durable import AppendFile, DamagedLine
from gpu_worker.results import groups, line, segments
from gpu_worker.results.segments import Segment

log = logging.getLogger(__name__)

SEGMENT_BYTES = 64 << 20
"""A segment that has grown past this is followed by a new one: about 100 pictures of 512 px."""


class ResultLog:
    """Appends to the newest segment. Not thread-safe: one thread appends."""

    def __init__(self, directory: Path, writer: str, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._writer = writer
        self._segment_bytes = segment_bytes
        self._segment = Segment(writer, 1, 1)
        self._file = AppendFile(directory / self._segment.name)
        self._leaving = False

    @property
    def position(self) -> tuple[str, int]:
        """The newest segment's name and how many bytes of it are on disk for good."""
        return self._segment.name, self._file.committed

    def open(self) -> None:
        """Open for append; a torn last line is cut and reported.

        Raises:
            OSError: a file cannot be opened, read or cut.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        newest = segments.newest(self._directory, self._writer)
        if newest is not None:
            number = newest.last + (newest.first != newest.last)  # merged ones are not ours
            self._segment = Segment(self._writer, number, number)
        self._file = AppendFile(self._directory / self._segment.name)
        cut = self._file.open()
        if cut:
            log.warning("%s: cut a torn line of %d bytes", self._file.path.name, cut)
        begin = groups.cut_short(self._file.path)
        if begin is not None:
            size = self._file.committed - begin
            log.warning("%s: cut %d bytes of a job whose end lacks", self._file.path.name, size)
            self._file.cut(begin)

    def append(self, record: dict[str, Any]) -> None:
        """Write one record and have it on disk; all or nothing. Raises OSError."""
        self.append_all([record])

    def append_all(self, records: list[dict[str, Any]]) -> None:
        """Write all records of a job and have them on disk; all or nothing.

        Raises:
            OSError: none is there; the log is as it was.
        """
        if not self._file.is_open:
            self.open()
        if self._leaving or self._file.committed >= self._segment_bytes:
            self.begin_segment()
        self._file.append(b"".join(map(line.encode, records)))

    def begin_segment(self) -> None:
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
        file = AppendFile(self._directory / following.name)
        file.open()
        self._file.close()
        self._segment, self._file, self._leaving = following, file, False

    def ends_with(self, uuid: str) -> bool:
        """Whether the newest record is this one: a job in flight that has its outcome.

        A worker commits a job before it begins the next, so no further look back is needed.

        Raises:
            OSError: the segment cannot be read.
        """
        newest = durable.last_line(self._file.path)
        try:
            return bool(newest) and line.draw(newest).uuid == uuid
        except DamagedLine:
            return False

    def close(self) -> None:
        """Close the file; appending afterwards is an error."""
        self._file.close()
