"""Reads new lines of the segments into the index. Not thread-safe: IndexFile holds a lock."""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from gateway.store import record_reader, tombstones
from gateway.store.gallery import labels_log
from gateway.store.gallery.image_name import ImageName
from gateway.store.index_db import Entry, IndexDb
from gpu_worker.store import outcomes, result_log, scan, segments
from gpu_worker.store.durable import StoreTooNew
from gpu_worker.store.record_line import ParsedLine

log = logging.getLogger(__name__)

_BATCH = 1000
_TOMBSTONES_AT_ONCE = 10_000


@dataclass
class IndexProgress:
    """How far the index has been built at a start, in bytes of the segments."""

    read_bytes: int = 0
    total_bytes: int = 0

    @property
    def percent(self) -> int:
        """Return how much has been read, in whole percent."""
        return min(100, 100 * self.read_bytes // self.total_bytes) if self.total_bytes else 0


class Indexer:
    """One directory of segments, the file of tombstones and the log of labels.

    `deleted`: uuids whose lines no longer count, although they have no tombstone yet.
    """

    def __init__(
        self,
        directory: Path,
        deletions: Path | None = None,
        progress: IndexProgress | None = None,
        labels: Path | None = None,
    ) -> None:
        self._progress = progress or IndexProgress()
        self._directory = directory
        self._deletions = deletions
        self._labels = labels
        self.deleted: set[str] = set()

    def is_deleted(self, db: IndexDb, uuid: str) -> bool:
        """Return whether a job was deleted, although its lines may still be on disk."""
        return uuid in self.deleted or db.tombstones.has(uuid)

    def index_tombstones(self, db: IndexDb) -> None:
        """Read the tombstones that the index does not have yet.

        Raises:
            OSError: the file cannot be read.
            sqlite3.DatabaseError: the file is older than the index, which must be rebuilt.
        """
        if self._deletions is None:
            return
        size = self._deletions.stat().st_size if self._deletions.exists() else 0
        read_to = db.tombstones.read_to()
        if size < read_to:
            raise sqlite3.DatabaseError(f"has read {read_to} of {size} bytes of deletions")
        if size == read_to:
            return
        lines = tombstones.read(self._deletions, read_to)
        while batch := list(islice(lines, _TOMBSTONES_AT_ONCE)):
            db.tombstones.add([(uuid, submission) for _, uuid, submission in batch], batch[-1][0])
            self.deleted.difference_update(uuid for _, uuid, _ in batch)

    def refresh(self, db: IndexDb, name: str, committed: int | None) -> list[Entry]:
        """Read one segment up to `committed`, and before it the same writer's older ones."""
        segment = segments.parse(name)
        if segment is None:
            return []
        new_entries: list[Entry] = []
        if db.read_to(name) is None:
            for older in segments.live_segments(self._directory):
                if older.writer == segment.writer and older.last < segment.first:
                    new_entries += self.index_segment(db, older.name, None)
        return new_entries + self.index_segment(db, name, committed)

    def index_segment(self, db: IndexDb, name: str, committed: int | None) -> list[Entry]:
        """Read the new lines of one segment, up to `committed` bytes or its last whole line.

        An outcome that may still be in writing is left for later, so that no reader sees a part.
        """
        known_end = db.read_to(name)
        path = self._directory / name
        if (committed is not None and committed == known_end) or not path.exists():
            return []
        if committed is not None and committed < (known_end or 0):
            # Its writer has cut it to less than was read.
            return self.reread(db, name, committed)
        return self._read_on(db, path, known_end, committed)

    def reread(self, db: IndexDb, name: str, committed: int | None) -> list[Entry]:
        """Read one segment from its start. When that fails, its records are found as before.

        Raises:
            OSError: the segment cannot be read.
        """
        path = self._directory / name
        path.stat()
        with db.transaction():
            db.forget_segment(name)
            return self._read_on(db, path, None, committed)

    def _read_on(
        self, db: IndexDb, path: Path, known_end: int | None, committed: int | None
    ) -> list[Entry]:
        name, start = path.name, known_end or 0
        new_entries: list[Entry] = []
        batch: list[tuple[Entry, bytes]] = []
        read_to, damaged = start, 0
        for group in outcomes.split_outcomes(scan.lines(path, start, committed)):
            if group.unfinished and committed is None and self._is_open(name):
                break
            for at in group.lines:
                read_to = at.offset + at.length
                self._progress.read_bytes += at.length
                if at.is_newer:
                    raise StoreTooNew(path, at.reason)
                if at.parsed is None:
                    damaged += 1
                    log.warning("%s: the line at %d is skipped: it %s", name, at.offset, at.reason)
                elif not self._is_dropped(db, at.parsed):
                    entry = record_reader.entry(name, at.offset, at.length, at.parsed)
                    batch.append((entry, at.metadata))
            if len(batch) >= _BATCH:
                new_entries += db.add(name, batch, read_to, damaged)
                batch, damaged = [], 0
        if read_to > start or known_end is None:
            new_entries += db.add(name, batch, read_to, damaged)
        return new_entries

    def catch_up(self, db: IndexDb) -> None:
        """Read the tombstones, then all segments: drop missing ones, read on in grown ones.

        Raises:
            OSError, sqlite3.DatabaseError: as index_tombstones() does.
        """
        self.index_tombstones(db)
        if self._labels is not None:
            db.labels.sync(labels_log.read(self._labels))
        read_to = db.segments()
        live = segments.sizes(self._directory)
        for name in read_to.keys() - live.keys():
            db.forget_segment(name)
        result_log.refuse_newer_in(self._directory)
        new_entries = 0
        unread = (max(0, size - read_to.get(name, 0)) for name, size in live.items())
        self._progress.read_bytes, self._progress.total_bytes = 0, sum(unread)
        for name, size in live.items():
            if size < read_to.get(name, 0):
                new_entries += len(self.reread(db, name, None))
            elif size != read_to.get(name):
                new_entries += len(self.index_segment(db, name, None))
        db.delete_all(self.deleted)
        if new_entries >= _BATCH:
            db.checkpoint()

    def _is_dropped(self, db: IndexDb, line: ParsedLine) -> bool:
        image = ImageName(line.uuid, line.image_index)
        return self.is_deleted(db, line.uuid) or db.labels.is_deleted(image)

    def _is_open(self, name: str) -> bool:
        return segments.parse(name) in segments.open_segments(
            segments.live_segments(self._directory)
        )
