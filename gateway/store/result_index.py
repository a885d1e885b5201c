"""Reads the result log by uuid and in order, in constant memory.

The index beside the log is a cache: it is rebuilt from the log when it is missing or damaged.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from gateway.store import record_reader
from gateway.store.gallery.image_name import ImageName
from gateway.store.gallery.image_search import Cursor, Filters, ImageRow
from gateway.store.gallery.labels_log import Label
from gateway.store.index_db import Entry
from gateway.store.index_file import IndexFile
from gateway.store.indexer import Indexer, IndexProgress
from gateway.store.record_reader import LocationCache, SegmentFiles
from gateway.store.stored_bytes import StoredBytes
from gpu_worker.store.durable import DamagedLine

log = logging.getLogger(__name__)

_PAGE = 256

Bytes = TypeVar("Bytes", bytes, StoredBytes)


class ResultIndex(IndexFile):
    """All segments of a directory. Thread-safe.

    Args:
        deletions: the file of tombstones; open() need not repeat its uuids.
        progress: is updated while open() reads the segments.
        labels: the log of labels.
    """

    def __init__(
        self,
        directory: Path,
        deletions: Path | None = None,
        progress: IndexProgress | None = None,
        labels: Path | None = None,
    ) -> None:
        self.directory = directory
        super().__init__(directory, Indexer(directory, deletions, progress, labels))
        self._segments = SegmentFiles(directory)
        self._locations = LocationCache(self._segments, self._location)
        self._reread_segments: set[str] = set()

    def open(self, deleted: Iterable[str] = ()) -> None:
        """Open the index and bring it up to date with the segments. A damaged one is rebuilt.

        Args:
            deleted: uuids that were deleted although their lines may still be on disk.

        Raises:
            OSError: the directory or a segment cannot be read.
        """
        with self.lock:
            self._indexer.deleted = set(deleted)
            super().open()

    # ---- indexing -----------------------------------------------------------------------------

    def refresh(self, name: str, committed: int | None) -> list[Entry]:
        """Index one segment up to `committed` bytes (None: its last whole line).

        What is left of the same writer's older segments is indexed before it.

        Returns:
            The new entries; none for a segment that does not exist yet or is not ours.

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
        """Replace merged segments by another, which `publish` renames to its name.

        The old files may be removed afterwards.
        """
        with self.lock:
            publish()
            self._segments.forget(*old, name)
            visible = [entry for entry in entries if not self._is_removed(entry)]
            self.db.move(old, name, visible, size)

    def reread(self, name: str) -> None:
        """Index a segment again, because a record in it is not what the index has.

        Raises:
            OSError: the segment cannot be read. The index is as before.
            sqlite3.OperationalError: the index cannot be written.
        """
        with self.lock:
            self._segments.forget(name)
            self._locations.forget()
            self.query(lambda db: self._indexer.reread(db, name, None))

    def delete(self, *uuids: str) -> None:
        """Hide the records of these jobs. Their lines leave the disk at the next consolidation."""
        with self.lock:
            self._indexer.deleted.update(uuids)
            self._locations.forget()
            try:
                self.query(lambda db: db.delete_all(uuids))
            except sqlite3.OperationalError as error:
                # It is hidden anyway, and the next start removes the row.
                log.warning("the index cannot store a deletion yet: %s", error)

    def index_tombstones(self) -> None:
        """Read new tombstones into the index, so that they need not stay in memory.

        Raises:
            OSError, sqlite3.OperationalError: the file cannot be read, or not be indexed.
        """
        with self.lock:
            self.query(self._indexer.index_tombstones)
            self._locations.forget()

    def set_labels(self, labels: Mapping[ImageName, Label]) -> None:
        """Show what has just been written to the log of labels.

        On a disk that refuses the index it continues in memory, with the labels of the log.
        """
        with self.lock:
            self._locations.forget()
            try:
                self.query(lambda db: db.labels.set(labels))
            except sqlite3.OperationalError as error:
                self._continue_in_memory(error)

    # ---- looking up ---------------------------------------------------------------------------

    @property
    def open_segments(self) -> SegmentFiles:
        """Return the open files, for callers that copy records unchanged."""
        return self._segments

    def find(self, uuid: str) -> Entry | None:
        """Return the entry of a job's first record, that of image 0 unless it is damaged."""
        return next(iter(self.find_all(uuid)), None)

    def find_all(self, uuid: str) -> list[Entry]:
        """Return the entries of a job's readable records in their order."""
        entries = self.query(lambda db: db.find_all(uuid))
        return [] if uuid in self._indexer.deleted else entries

    def find_records(self, uuid: str) -> list[Entry]:
        """Return the entries of a job as find_all() does, and those in the trash."""
        entries = self.query(lambda db: db.find_records(uuid))
        return [] if uuid in self._indexer.deleted else entries

    def has_outcome(self, uuid: str) -> bool:
        """Return whether a job has ended and is not deleted, although it may be in the trash."""
        return bool(self.find_records(uuid))

    def find_image(self, uuid: str, image_index: int, *, trash: bool = False) -> Entry | None:
        """Return the entry of one image of a job, counted from 0.

        Args:
            trash: an image in the trash counts, too.
        """
        entry = self.query(lambda db: db.find_image(uuid, image_index, trash=trash))
        return None if entry is None or self._is_removed(entry) else entry

    def search(
        self, filters: Filters, limit: int, offset: int = 0, after: Cursor | None = None
    ) -> tuple[int, list[ImageRow]]:
        """Return how many images there are, and a page of them as ImageSearch.page() does."""
        with self.lock:
            total = self.query(lambda db: db.images.total(filters))
            page = self.query(lambda db: db.images.page(filters, limit, offset, after))
        return total, [row for row in page if row.name.uuid not in self._indexer.deleted]

    def find_submission(self, key: str) -> tuple[str, str] | None:
        """Return the uuid and the submission of the job with this Idempotency-Key's digest.

        A deleted job is found too.
        """
        return self.query(lambda db: db.find_submission(key) or db.tombstones.find_submission(key))

    def is_deleted(self, uuid: str) -> bool:
        """Return whether a job's results were deleted, or are all in the trash."""
        return self.query(lambda db: self._indexer.is_deleted(db, uuid) or db.is_trashed(uuid))

    def is_removed(self, uuid: str) -> bool:
        """Return whether a job's results were deleted for good."""
        return self.query(lambda db: self._indexer.is_deleted(db, uuid))

    def is_image_deleted(self, uuid: str, image_index: int) -> bool:
        """Return whether one image of a job was deleted, or is in the trash."""
        name = ImageName(uuid, image_index)
        return self.query(lambda db: db.labels.is_deleted(name) or db.is_hidden(*name))

    def read(self, what: str | Entry) -> bytes | None:
        """Return a record, a JSON object without its newline; None when there is none.

        Args:
            what: a uuid, for the job's first record, or an entry.

        Raises:
            DamagedLine: the record is damaged on the disk.
            OSError: the record cannot be read.
        """
        if isinstance(what, str) and what not in self._indexer.deleted:
            line = self._locations.read(what)
            if line is not None:
                return line
        return self._read_entry(what, record_reader.whole)

    def read_without_data(self, what: str | Entry) -> bytes | None:
        """Return a record as read() does, but with `data` null; the image is not read."""
        return self._read_entry(what, record_reader.without_data)

    def read_data(self, what: str | Entry) -> bytes | None:
        """Return the base64 text of the image, empty without an image."""
        return self._read_entry(what, record_reader.data)

    def stored(self, entry: Entry) -> StoredBytes | None:
        """Return a verified record as read() does, to be read from the log piece by piece."""
        return self._read_entry(entry, record_reader.stored)

    def stored_data(self, entry: Entry) -> StoredBytes | None:
        """Return the base64 text of the image, to be read from the log piece by piece."""
        return self._read_entry(entry, record_reader.stored_data)

    def oldest_first(self) -> Iterator[Entry]:
        """Yield every record. New ones are included, deleted ones are not."""
        mark = (-1, "", 0)
        while True:
            page = self.query(lambda db, mark=mark: db.after(mark, _PAGE))  # type: ignore[misc]
            if not page:
                return
            mark = (page[-1].sequence, page[-1].uuid, page[-1].image_index)
            yield from page

    def newest_first(self, limit: int, before: Entry | None = None) -> list[Entry]:
        """Return a page of `limit` records and the rest of its last job, newest first.

        A page begins and ends with whole jobs. `before` is an entry of the previous page's last
        job.
        """
        mark = (before.sequence, before.uuid) if before else (1 << 62, "")
        return self.query(lambda db: db.before(mark, limit))

    def _location(self, uuid: str) -> tuple[str, int, int] | None:
        with self.lock:
            return self.db.location(uuid)

    def _read_entry(
        self, what: str | Entry, take: Callable[[SegmentFiles, Entry], Bytes]
    ) -> Bytes | None:
        """Read an entry, and look it up again when a merge has moved it meanwhile."""
        entry = self.find(what) if isinstance(what, str) else what
        while entry is not None and not self._is_removed(entry):
            try:
                return take(self._segments, entry)
            except (FileNotFoundError, DamagedLine):
                self._segments.forget(entry.segment)
                current = self.find_image(entry.uuid, entry.image_index, trash=True)
                if current == entry and not self._reread(entry.segment):
                    raise
                entry = self.find_image(entry.uuid, entry.image_index, trash=True)
        return None

    def _reread(self, name: str) -> bool:
        """Index a segment again, once: a restored copy of the index may be older than it."""
        with self.lock:
            if name in self._reread_segments:
                return False
            try:
                self.reread(name)
            except (OSError, sqlite3.Error) as error:
                log.warning("%s cannot be indexed again yet: %s", name, error)
                return False
            self._reread_segments.add(name)
            return True

    def _is_removed(self, entry: Entry) -> bool:
        return self.is_removed(entry.uuid)
