"""The reader's side of the result log: by uuid and in order, in memory that does not grow. A leaf.

The index beside the log is a cache: missing, stale or damaged, it is made anew from the log.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gpu_worker.durable import DamagedLine
from gpu_worker.results import place
from gpu_worker.results.catalog import Catalog, Entry, Totals
from gpu_worker.results.reading import Reading

log = logging.getLogger(__name__)

INDEX_NAME = "index.sqlite"
_PAGE = 256
_FIRST = (-1, "")


class ResultIndex:
    """All segments of a directory. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.RLock()
        self._reading = Reading(directory)
        self._read_anew_once: set[str] = set()
        self._catalog: Catalog | None = None

    def open(self, deleted: Iterable[str] = ()) -> None:
        """Take up the index, bring it up to date with the segments; a bad one is made anew.

        Args:
            deleted: uuids that are gone although their lines may still be on the disk.

        Raises:
            OSError: the directory or a segment cannot be read.
        """
        with self._lock:
            self._reading.deleted = set(deleted)
            try:
                self._catalog = Catalog(self.directory / INDEX_NAME)
                self._reading.catch_up(self._db)
            except sqlite3.OperationalError as error:
                # A full or read-only disk: results can still be read.
                log.warning("the index cannot be written (%s); it is kept in memory", error)
                self.close()
                self._catalog = Catalog(Path(":memory:"))
                self._reading.catch_up(self._db)
            except sqlite3.DatabaseError as error:
                self._rebuild(error)

    def close(self) -> None:
        """Close the index."""
        with self._lock:
            if self._catalog is not None:
                self._catalog.close()
                self._catalog = None

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
        with self._lock:
            return self._reading.refresh(self._db, name, committed)

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
        with self._lock:
            publish()
            kept = [entry for entry in entries if entry.uuid not in self._reading.deleted]
            self._db.move(old, name, kept, size)

    def delete(self, uuid: str) -> None:
        """The record is gone for readers; its line leaves the disk at the next consolidation."""
        with self._lock:
            self._reading.deleted.add(uuid)
            self._db.delete(uuid)

    # ---- looking up ---------------------------------------------------------------------------

    def find(self, uuid: str) -> Entry | None:
        """Where a record stands."""
        with self._lock:
            try:
                return self._db.find(uuid)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._rebuild(error)
                return self._db.find(uuid)

    def read(self, uuid: str) -> bytes | None:
        """The line without its newline: a whole JSON object; None when there is none.

        Raises:
            DamagedLine: it has been damaged on the disk.
            OSError: it cannot be read.
        """
        return self._at_its_place(uuid, place.whole)

    def read_without_data(self, uuid: str) -> bytes | None:
        """As read(), with `data` null; the picture is not read from the disk."""
        return self._at_its_place(uuid, place.without_data)

    def read_data(self, uuid: str) -> bytes | None:
        """The base64 text of the picture, empty when there is no picture."""
        return self._at_its_place(uuid, place.data)

    def oldest_first(self) -> Iterator[str]:
        """Every uuid; what comes in meanwhile is included, what is deleted is not."""
        mark = _FIRST
        while True:
            with self._lock:
                page = self._db.after(mark, _PAGE)
            if not page:
                return
            mark = (page[-1].sequence, page[-1].uuid)
            yield from (entry.uuid for entry in page)

    def newest_first(self, limit: int, before: Entry | None = None) -> list[Entry]:
        """A page; `before` is the last entry of the page before it."""
        mark = (before.sequence, before.uuid) if before else (1 << 62, "")
        with self._lock:
            return self._db.before(mark, limit)

    def of_segment(self, name: str) -> list[Entry]:
        """The records of one segment, by offset."""
        with self._lock:
            return self._db.of_segment(name)

    def live_bytes(self) -> dict[str, int]:
        """Bytes of records that count, a segment."""
        with self._lock:
            return self._db.live_bytes()

    def last_sequence(self) -> int:
        """The highest sequence number there is, 0 when there is none."""
        with self._lock:
            return self._db.last_sequence()

    def totals(self) -> Totals:
        """The whole log in numbers."""
        with self._lock:
            return self._db.totals()

    @property
    def _db(self) -> Catalog:
        if self._catalog is None:
            raise RuntimeError("the index is not open")
        return self._catalog

    def _at_its_place(self, uuid: str, take: Callable[[Path, Entry], bytes]) -> bytes | None:
        """Read; when a merge has moved the line meanwhile, look again where it is now."""
        while True:
            entry = self.find(uuid)
            if entry is None:
                return None
            try:
                return take(self.directory / entry.segment, entry)
            except (FileNotFoundError, DamagedLine):
                if self.find(uuid) == entry and not self._read_anew(entry.segment):
                    raise

    def _read_anew(self, name: str) -> bool:
        """An index older than its segment (a copy that was put back) misleads: once a segment."""
        with self._lock:
            if name in self._read_anew_once:
                return False
            self._read_anew_once.add(name)
            self._db.forget_segment(name)
            self._reading.take_in(self._db, name, None)
            return True

    def _rebuild(self, error: Exception) -> None:
        log.warning("the index is damaged (%s); it is made anew from the log", error)
        self.close()
        for end in ("", "-wal", "-shm"):
            (self.directory / f"{INDEX_NAME}{end}").unlink(missing_ok=True)
        self._catalog = Catalog(self.directory / INDEX_NAME)
        self._reading.catch_up(self._db)
