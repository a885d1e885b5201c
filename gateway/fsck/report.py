"""The report of a check: results, jobs, faults, and the repairs to make.

It is a temporary database outside the store, so that memory does not grow with the store.
"""

from __future__ import annotations

import enum
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gateway.store.index_db import COLUMNS, INSERT_FIRST, Entry
from gpu_worker.store.segments import Segment

_SCHEMA = f"""
PRAGMA journal_mode = OFF;
CREATE TABLE results ({COLUMNS}, PRIMARY KEY (uuid, image_index)) WITHOUT ROWID;
CREATE TABLE accepted (uuid TEXT PRIMARY KEY, offset INTEGER) WITHOUT ROWID;
CREATE TABLE deleted (uuid TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE deleted_images (
    uuid TEXT, image_index INTEGER, PRIMARY KEY (uuid, image_index)
) WITHOUT ROWID;
CREATE TABLE parts (
    path TEXT, offset INTEGER, length INTEGER, uuid TEXT, image_index INTEGER,
    PRIMARY KEY (path, offset)
) WITHOUT ROWID;
"""


class Kind(enum.StrEnum):
    """The kinds of findings. The summary counts each kind."""

    TORN = "torn tail"
    DAMAGED = "damaged line"
    DOUBLED = "doubled result"
    INCOMPLETE = "incomplete result"
    REPLACED = "replaced segment"
    LEFT_OVER = "left-over file"
    NOTE = "orphaned note"
    INDEX = "index"
    UNREADABLE = "unreadable file"
    FOREIGN = "line of another version"
    MISSING = "missing file"
    WAITING = "waiting job"
    DELETED = "deleted result"


@dataclass(frozen=True)
class Finding:
    """One line for the operator. A finding that is not a fault is information."""

    kind: Kind
    path: Path
    offset: int | None
    reason: str
    is_fault: bool


class Part(NamedTuple):
    """Bytes to remove from a file.

    With a uuid they are a whole record, which is doubled or belongs to an unfinished outcome.
    """

    offset: int
    length: int
    uuid: str | None = None
    image_index: int | None = None


class Report:
    """The report of one check, which repair.py reads. It is not thread-safe; close it.

    Args:
        on_finding: is called with each finding.
        is_live: returns whether the writer of a name is running. Its files may change.
    """

    def __init__(
        self, on_finding: Callable[[Finding], None], is_live: Callable[[str], bool]
    ) -> None:
        self._on_finding = on_finding
        self.is_live = is_live
        # The empty name is a temporary file that SQLite deletes with the connection
        # (sqlite.org/inmemorydb.html, "temporary databases").
        self.db = sqlite3.connect("", isolation_level=None)
        self.db.executescript(_SCHEMA)
        self.counts: Counter[tuple[bool, Kind]] = Counter()
        self.read_to: dict[Path, int] = {}
        self.sizes: dict[str, int] = {}
        self.newest: dict[str, str] = {}
        self.obsolete: list[Path] = []
        self.quarantined: list[Path] = []
        self.index_is_bad = False

    def close(self) -> None:
        """Delete the database."""
        self.db.close()

    @property
    def faults(self) -> int:
        """Return the number of faults."""
        return sum(count for (is_fault, _), count in self.counts.items() if is_fault)

    @property
    def repairable(self) -> int:
        """Return the number of repairable faults. An incomplete result cannot be repaired."""
        return self.faults - self.counts[True, Kind.INCOMPLETE]

    @property
    def size_bytes(self) -> int:
        """Return the size of all live segments without torn tails."""
        return sum(self.sizes.values())

    def results(self) -> int:
        """Return the number of records that readers see."""
        query = "SELECT COUNT(*) FROM results WHERE uuid NOT IN (SELECT uuid FROM deleted)"
        return int(self.db.execute(query).fetchone()[0])

    def find(
        self, kind: Kind, path: Path, offset: int | None, reason: str, *, is_fault: bool = True
    ) -> None:
        """Count a finding and report it."""
        self.counts[is_fault, kind] += 1
        self._on_finding(Finding(kind, path, offset, reason, is_fault))

    # ---- writing ------------------------------------------------------------------------------

    def add(self, entry: Entry) -> Entry | None:
        """Add a record; return the one that readers see if the job has it already."""
        if self.db.execute(INSERT_FIRST, entry).rowcount:
            return None
        query = f"SELECT {COLUMNS} FROM results WHERE uuid = ? ORDER BY image_index = ? DESC"
        return Entry(*self.db.execute(query, (entry.uuid, entry.image_index)).fetchone())

    def end_segment(self, segment: Segment, size: int, last: str | None) -> None:
        """Note the end of a live segment. The segments of a writer are read in order."""
        self.sizes[segment.name] = size
        # A worker appends to a new segment after a merged one, and finds its last job there.
        if last is not None and segment.first == segment.last:
            self.newest[segment.writer] = last
        else:
            self.newest.pop(segment.writer, None)

    def accept(self, uuid: str, offset: int) -> None:
        """Note that the journal has accepted a job."""
        self.db.execute("INSERT OR IGNORE INTO accepted VALUES (?, ?)", (uuid, offset))

    def delete(self, uuid: str) -> None:
        """Note that the journal has deleted a result."""
        self.db.execute("INSERT OR IGNORE INTO deleted VALUES (?)", (uuid,))

    def delete_image(self, uuid: str, image_index: int) -> None:
        """Note that one image of a job was deleted."""
        self.db.execute("INSERT OR IGNORE INTO deleted_images VALUES (?, ?)", (uuid, image_index))

    def take_out(self, path: Path, part: Part) -> None:
        """Note the bytes to remove from a file."""
        self.db.execute("INSERT INTO parts VALUES (?, ?, ?, ?, ?)", (str(path), *part))

    # ---- reading ------------------------------------------------------------------------------

    def has_result(self, uuid: str) -> bool:
        """Return whether a live segment holds a record of the job, deleted or not."""
        return self._is_in("results", uuid)

    def has_image(self, uuid: str, image_index: int) -> bool:
        """Return whether a live segment holds this record."""
        query = "SELECT 1 FROM results WHERE uuid = ? AND image_index = ?"
        return self.db.execute(query, (uuid, image_index)).fetchone() is not None

    def incomplete(self) -> Iterator[tuple[str, int, int, str, int]]:
        """Yield the outcomes that lack records.

        The values are uuid, number of records, expected number, segment and offset of one.
        """
        yield from self.db.execute(
            "SELECT uuid, COUNT(*), num_images, segment, MIN(offset) FROM results AS here "
            "WHERE num_images > 1 AND uuid NOT IN (SELECT uuid FROM deleted) "
            "GROUP BY uuid HAVING COUNT(*) + (SELECT COUNT(*) FROM deleted_images AS gone "
            "WHERE gone.uuid = here.uuid AND (gone.uuid, gone.image_index) NOT IN "
            "(SELECT uuid, image_index FROM results)) < num_images ORDER BY segment, offset"
        )

    def is_accepted(self, uuid: str) -> bool:
        """Return whether the journal has accepted the job."""
        return self._is_in("accepted", uuid)

    def is_deleted(self, uuid: str) -> bool:
        """Return whether the journal has deleted the result."""
        return self._is_in("deleted", uuid)

    def is_image_deleted(self, uuid: str, image_index: int | None) -> bool:
        """Return whether an image was deleted, alone or with its job."""
        query = "SELECT 1 FROM deleted_images WHERE uuid = ? AND image_index = ?"
        alone = self.db.execute(query, (uuid, image_index)).fetchone()
        return alone is not None or self.is_deleted(uuid)

    def waiting(self) -> Iterator[tuple[str, int]]:
        """Yield uuid and journal offset of each accepted job without an outcome, in order."""
        yield from self.db.execute(
            "SELECT uuid, offset FROM accepted WHERE uuid NOT IN (SELECT uuid FROM results) "
            "AND uuid NOT IN (SELECT uuid FROM deleted) ORDER BY offset"
        )

    def deleted(self) -> Iterator[tuple[str, str, int]]:
        """Yield uuid, segment and offset of each deleted result that is still on the disk."""
        yield from self.db.execute(
            "SELECT uuid, segment, offset FROM results "
            "WHERE uuid IN (SELECT uuid FROM deleted) ORDER BY segment, offset"
        )

    def files_to_repair(self) -> list[Path]:
        """Return the files that have bytes to remove."""
        rows = self.db.execute("SELECT DISTINCT path FROM parts ORDER BY path")
        return [Path(path) for (path,) in rows.fetchall()]

    def parts(self, path: Path) -> Iterator[Part]:
        """Yield the bytes to remove from a file, by offset."""
        query = "SELECT offset, length, uuid, image_index FROM parts WHERE path = ? ORDER BY offset"
        yield from (Part(*row) for row in self.db.execute(query, (str(path),)))

    def query(self, sql: str, values: Iterable[Any] = ()) -> list[Any]:
        """Run SQL for a comparison with another database. Raises sqlite3.DatabaseError."""
        return self.db.execute(sql, tuple(values)).fetchall()

    def _is_in(self, table: str, uuid: str) -> bool:
        row = self.db.execute(f"SELECT 1 FROM {table} WHERE uuid = ?", (uuid,)).fetchone()
        return row is not None
