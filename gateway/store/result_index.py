"""The reader's side of the result log: by uuid and in order, in memory that does not grow. A leaf.

The index beside the log is a cache: missing, stale or damaged, it is made anew from the log.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gateway.store import record_reader
from gateway.store.index_db import Entry
from gateway.store.index_file import IndexFile
from gateway.store.indexer import Indexer
from gateway.store.record_reader import LocationCache, SegmentFiles
from gpu_worker.store.durable import DamagedLine

log = logging.getLogger(__name__)

_PAGE = 256


class ResultIndex(IndexFile):
    """All segments of a directory. Thread-safe.

    Args:
        deletions: the file of what was deleted for good; what it says need not be told to open().
    """

    def __init__(self, directory: Path, deletions: Path | None = None) -> None:
        self.directory = directory
        super().__init__(directory, Indexer(directory, deletions))
        self._segments = SegmentFiles(directory)
        self._locations = LocationCache(self._segments, self._where)
        self._reread_segments: set[str] = set()

    def open(self, deleted: Iterable[str] = ()) -> None:
        """Take up the index, bring it up to date with the segments; a bad one is made anew.

        Args:
            deleted: uuids that are gone although their lines may still be on the disk.

        Raises:
            OSError: the directory or a segment cannot be read.
        """
        with self.lock:
            self._indexer.deleted = set(deleted)
            super().open()

    # ---- taking in ----------------------------------------------------------------------------

    def refresh(self, name: str, committed: int | None) -> list[Entry]:
        """Take in one segment up to `committed` bytes (None: its last whole line), and before it
        what is left of the same writer's older ones.

        Returns:
            What is new. A segment that is not there yet, or none of ours, has nothing.

        Raises:
            OSError: the segment cannot be read.
            sqlite3.OperationalError: the index cannot be written.
        """
        return self.query(lambda db: self._indexer.refresh(db, name, committed))

    def replace(
        self,
        old: list[str],
        name: str,
        entries: list[Entry],
        size: int,
        publish: Callable[[], None],
    ) -> None:
        """Segments have been merged into another, which `publish` puts into its place.

        The files of the old ones may be removed afterwards.
        """
        with self.lock:
            publish()
            self._segments.forget(*old, name)
            kept = [entry for entry in entries if not self._is_hidden(entry)]
            self.db.move(old, name, kept, size)

    def delete(self, *uuids: str) -> None:
        """These jobs' records are gone for readers; their lines leave the disk at the next
        consolidation."""
        with self.lock:
            self._indexer.deleted.update(uuids)
            self._locations.forget()
            try:
                self.query(lambda db: db.delete_all(uuids))
            except sqlite3.OperationalError as error:
                # It is hidden all the same, and the row goes at the next start.
                log.warning("the index does not take a deletion: %s", error)

    def index_tombstones(self) -> None:
        """The file of deletions has grown: what it says is looked up from now on, not remembered.

        Raises:
            OSError, sqlite3.OperationalError: it cannot be read, or not be taken in.
        """
        with self.lock:
            self.query(self._indexer.index_tombstones)
            self._locations.forget()

    # ---- looking up ---------------------------------------------------------------------------

    @property
    def open_segments(self) -> SegmentFiles:
        """For who copies records as they are."""
        return self._segments

    def find(self, uuid: str) -> Entry | None:
        """Where a job's first record stands: the one of image 0, unless that was damaged."""
        return next(iter(self.find_all(uuid)), None)

    def find_all(self, uuid: str) -> list[Entry]:
        """Where a job's records stand, in their order: those that could be read."""
        entries = self.query(lambda db: db.find_all(uuid))
        return [] if uuid in self._indexer.deleted else entries

    def find_image(self, uuid: str, image_index: int) -> Entry | None:
        """Where the record of one of a job's pictures, counted from 0, stands."""
        entry = self.query(lambda db: db.find_image(uuid, image_index))
        return None if entry is None or self._is_hidden(entry) else entry

    def find_submission(self, key: str) -> tuple[str, str] | None:
        """The uuid and the submission of the job, be it deleted, that came with this
        Idempotency-Key's digest."""
        return self.query(lambda db: db.find_submission(key) or db.tombstones.find_submission(key))

    def is_deleted(self, uuid: str) -> bool:
        """Whether a job's results were deleted."""
        return self.query(lambda db: self._indexer.is_deleted(db, uuid))

    def read(self, what: str | Entry) -> bytes | None:
        """The line without its newline: a whole JSON object; None when there is none.

        Args:
            what: a uuid, for the job's first record, or an entry that was found before.

        Raises:
            DamagedLine: it has been damaged on the disk.
            OSError: it cannot be read.
        """
        if isinstance(what, str) and what not in self._indexer.deleted:
            line = self._locations.read(what)
            if line is not None:
                return line
        return self._read_entry(what, record_reader.whole)

    def read_without_data(self, what: str | Entry) -> bytes | None:
        """As read(), with `data` null; the picture is not read from the disk."""
        return self._read_entry(what, record_reader.without_data)

    def read_data(self, what: str | Entry) -> bytes | None:
        """The base64 text of the picture, empty when there is no picture."""
        return self._read_entry(what, record_reader.data)

    def oldest_first(self) -> Iterator[Entry]:
        """Every record; what comes in meanwhile is included, what is deleted is not."""
        mark = (-1, "", 0)
        while True:
            page = self.query(lambda db, mark=mark: db.after(mark, _PAGE))  # type: ignore[misc]
            if not page:
                return
            mark = (page[-1].sequence, page[-1].uuid, page[-1].image_index)
            yield from page

    def newest_first(self, limit: int, before: Entry | None = None) -> list[Entry]:
        """A page: `limit` records, and what is left of the last one's job.

        It is oldest_first() turned round. `before` is the last entry of the page before it, or any
        other of its job: a page begins and ends with whole jobs.
        """
        mark = (before.sequence, before.uuid) if before else (1 << 62, "")
        return self.query(lambda db: db.before(mark, limit))

    def _where(self, uuid: str) -> tuple[str, int, int] | None:
        with self.lock:
            return self.db.where(uuid)

    def _read_entry(
        self, what: str | Entry, take: Callable[[SegmentFiles, Entry], bytes]
    ) -> bytes | None:
        """Read; when a merge has moved the line meanwhile, look again where it is now."""
        entry = self.find(what) if isinstance(what, str) else what
        while entry is not None and not self._is_hidden(entry):
            try:
                return take(self._segments, entry)
            except (FileNotFoundError, DamagedLine):
                self._segments.forget(entry.segment)
                found = self.find_image(entry.uuid, entry.image_index)
                if found == entry and not self._reread(entry.segment):
                    raise
                entry = self.find_image(entry.uuid, entry.image_index)
        return None

    def _reread(self, name: str) -> bool:
        """An index older than its segment (a copy that was put back) misleads: once a segment."""
        with self.lock:
            if name in self._reread_segments:
                return False
            self._reread_segments.add(name)
            self.db.forget_segment(name)
            self._indexer.index_segment(self.db, name, None)
            return True

    def _is_hidden(self, entry: Entry) -> bool:
        return self.is_deleted(entry.uuid)
