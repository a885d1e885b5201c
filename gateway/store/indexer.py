"""Takes what stands in the segments into the index: new lines, and what was missed. A leaf.

Not thread-safe: ResultIndex holds a lock.
"""

from __future__ import annotations

import logging
import sqlite3
from itertools import islice
from pathlib import Path

from gateway.store import record_reader, tombstones
from gateway.store.index_db import Entry, IndexDb
from gpu_worker.store import outcomes, scan, segments

log = logging.getLogger(__name__)

_BATCH = 1000
_TOMBSTONES_AT_ONCE = 10_000


class Indexer:
    """One directory of segments, and the file of deletions.

    `deleted`: uuids whose lines do not count any more although that file does not say so yet.
    """

    def __init__(self, directory: Path, deletions: Path | None = None) -> None:
        self._directory = directory
        self._deletions = deletions
        self.deleted: set[str] = set()

    def is_deleted(self, db: IndexDb, uuid: str) -> bool:
        """Whether a job's lines, should they be there still, do not count any more."""
        return uuid in self.deleted or db.tombstones.has(uuid)

    def index_tombstones(self, db: IndexDb) -> None:
        """Take in what the file of deletions has more than the index knows.

        Raises:
            OSError: it cannot be read.
            sqlite3.DatabaseError: it is older than the index, which is to be made anew.
        """
        if self._deletions is None:
            return
        size = self._deletions.stat().st_size if self._deletions.exists() else 0
        known = db.tombstones.read_to()
        if size < known:
            raise sqlite3.DatabaseError(f"has read {known} of {size} bytes of deletions")
        if size == known:
            return
        lines = tombstones.read(self._deletions, known)
        while batch := list(islice(lines, _TOMBSTONES_AT_ONCE)):
            db.tombstones.add([(uuid, given) for _, uuid, given in batch], batch[-1][0])
            self.deleted.difference_update(uuid for _, uuid, _ in batch)

    def refresh(self, db: IndexDb, name: str, committed: int | None) -> list[Entry]:
        """One segment up to `committed`, and before it the same writer's older ones."""
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
        """The lines of one segment that are new, up to `committed` bytes or its last whole line.

        An outcome that may still be being written is left for later: nobody sees a part of it.
        """
        known = db.read_to(name)
        start = known or 0
        path = self._directory / name
        if (committed is not None and committed == known) or not path.exists():
            return []
        if committed is not None and committed < start:
            # Its writer has cut it back below what we had read: begin with it anew.
            db.forget_segment(name)
            known, start = None, 0
        new_entries: list[Entry] = []
        batch: list[Entry] = []
        read_to, damaged = start, 0
        for group in outcomes.split_outcomes(scan.lines(path, start, committed)):
            if group.unfinished and committed is None and self._grows(name):
                break
            for at in group.lines:
                read_to = at.offset + at.length
                if at.drawn is None:
                    damaged += 1
                    log.warning("%s: skipped the line at %d: it %s", name, at.offset, at.reason)
                elif not self.is_deleted(db, at.drawn.uuid):
                    batch.append(record_reader.entry(name, at.offset, at.length, at.drawn))
            if len(batch) >= _BATCH:
                new_entries += db.add(name, batch, read_to, damaged)
                batch, damaged = [], 0
        if read_to > start or known is None:
            new_entries += db.add(name, batch, read_to, damaged)
        return new_entries

    def catch_up(self, db: IndexDb) -> None:
        """The deletions, then all segments: those that are gone are forgotten, those that have
        grown are read on. Raises as index_tombstones() does."""
        self.index_tombstones(db)
        known = db.segments()
        live = segments.sizes(self._directory)
        for name in known.keys() - live.keys():
            db.forget_segment(name)
        new_entries = 0
        for name, size in live.items():
            if size < known.get(name, 0):
                db.forget_segment(name)
            if size != known.get(name):
                new_entries += len(self.index_segment(db, name, None))
        db.delete_all(self.deleted)
        if new_entries >= _BATCH:
            db.settle()

    def _grows(self, name: str) -> bool:
        return segments.parse(name) in segments.open_segments(
            segments.live_segments(self._directory)
        )
