"""What an examination of the store has seen: results, jobs, faults, what is to be mended. A leaf.

Kept in a temporary database outside the store, so that memory does not grow with it.
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
CREATE TABLE parts (
    path TEXT, offset INTEGER, length INTEGER, uuid TEXT, image_index INTEGER,
    PRIMARY KEY (path, offset)
) WITHOUT ROWID;
"""


class Kind(enum.StrEnum):
    """What a finding is about; the summary counts by it."""

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
    """One line for the operator. What is no fault is information."""

    kind: Kind
    path: Path
    offset: int | None
    reason: str
    is_fault: bool


class Part(NamedTuple):
    """Bytes to be taken out of a file; with a uuid they are a whole record: it is doubled, or the
    outcome that it belongs to was not written to its end."""

    offset: int
    length: int
    uuid: str | None = None
    image_index: int | None = None


class Report:
    """Filled by one examination, read by the mending. Not thread-safe; close it.

    Args:
        say: takes each finding as it is made.
        is_live: whether the writer of that name runs now, and what its files look like may be a
            moment's.
    """

    def __init__(self, say: Callable[[Finding], None], is_live: Callable[[str], bool]) -> None:
        self._say = say
        self.is_live = is_live
        # The empty name: SQLite's own temporary file, gone with the connection
        # (sqlite.org/inmemorydb.html, "temporary databases").
        self.db = sqlite3.connect("", isolation_level=None)
        self.db.executescript(_SCHEMA)
        self.counts: Counter[tuple[bool, Kind]] = Counter()
        self.read_to: dict[Path, int] = {}
        self.sizes: dict[str, int] = {}
        self.newest: dict[str, str] = {}
        self.void: list[Path] = []
        self.aside: list[Path] = []
        self.index_is_bad = False

    def close(self) -> None:
        """Drop everything."""
        self.db.close()

    @property
    def faults(self) -> int:
        """How many were found."""
        return sum(count for (is_fault, _), count in self.counts.items() if is_fault)

    @property
    def mendable(self) -> int:
        """How many of them can be mended: what an outcome lacks is nowhere."""
        return self.faults - self.counts[True, Kind.INCOMPLETE]

    @property
    def size_bytes(self) -> int:
        """Of all segments that count, torn tails left out."""
        return sum(self.sizes.values())

    def results(self) -> int:
        """Records that readers see."""
        query = "SELECT COUNT(*) FROM results WHERE uuid NOT IN (SELECT uuid FROM deleted)"
        return int(self.db.execute(query).fetchone()[0])

    def find(
        self, kind: Kind, path: Path, offset: int | None, reason: str, *, is_fault: bool = True
    ) -> None:
        """Count a finding and tell it."""
        self.counts[is_fault, kind] += 1
        self._say(Finding(kind, path, offset, reason, is_fault))

    # ---- taking in ----------------------------------------------------------------------------

    def add(self, entry: Entry) -> Entry | None:
        """Take in a record; what counts when its job had it, or another outcome, already."""
        if self.db.execute(INSERT_FIRST, entry).rowcount:
            return None
        query = f"SELECT {COLUMNS} FROM results WHERE uuid = ? ORDER BY image_index = ? DESC"
        return Entry(*self.db.execute(query, (entry.uuid, entry.image_index)).fetchone())

    def end_segment(self, segment: Segment, size: int, last: str | None) -> None:
        """A live segment has been read; they come in order, so the last of a writer stands."""
        self.sizes[segment.name] = size
        # A worker appends behind a merged segment, to a new one, and looks for its last job there.
        if last is not None and segment.first == segment.last:
            self.newest[segment.writer] = last
        else:
            self.newest.pop(segment.writer, None)

    def accept(self, uuid: str, offset: int) -> None:
        """The journal has accepted a job."""
        self.db.execute("INSERT OR IGNORE INTO accepted VALUES (?, ?)", (uuid, offset))

    def delete(self, uuid: str) -> None:
        """The journal calls a result deleted."""
        self.db.execute("INSERT OR IGNORE INTO deleted VALUES (?)", (uuid,))

    def take_out(self, path: Path, part: Part) -> None:
        """Have bytes taken out of a file when it is mended."""
        self.db.execute("INSERT INTO parts VALUES (?, ?, ?, ?, ?)", (str(path), *part))

    # ---- looking up ---------------------------------------------------------------------------

    def has_result(self, uuid: str) -> bool:
        """Whether a live segment holds it, deleted or not."""
        return self._is_in("results", uuid)

    def has_image(self, uuid: str, image_index: int) -> bool:
        """The same of one of its records."""
        query = "SELECT 1 FROM results WHERE uuid = ? AND image_index = ?"
        return self.db.execute(query, (uuid, image_index)).fetchone() is not None

    def incomplete(self) -> Iterator[tuple[str, int, int, str, int]]:
        """Outcomes that lack records: uuid, how many there are, of how many, and segment and offset
        of one of them."""
        yield from self.db.execute(
            "SELECT uuid, COUNT(*), num_images, segment, MIN(offset) FROM results "
            "WHERE num_images > 1 AND uuid NOT IN (SELECT uuid FROM deleted) "
            "GROUP BY uuid HAVING COUNT(*) < num_images ORDER BY segment, offset"
        )

    def is_accepted(self, uuid: str) -> bool:
        """Whether the journal still knows that it was accepted."""
        return self._is_in("accepted", uuid)

    def is_deleted(self, uuid: str) -> bool:
        """Whether the journal calls it deleted."""
        return self._is_in("deleted", uuid)

    def waiting(self) -> Iterator[tuple[str, int]]:
        """Accepted jobs without an outcome: uuid and offset in the journal, in its order."""
        yield from self.db.execute(
            "SELECT uuid, offset FROM accepted WHERE uuid NOT IN (SELECT uuid FROM results) "
            "AND uuid NOT IN (SELECT uuid FROM deleted) ORDER BY offset"
        )

    def deleted(self) -> Iterator[tuple[str, str, int]]:
        """Deleted results whose lines are there still: uuid, segment, offset."""
        yield from self.db.execute(
            "SELECT uuid, segment, offset FROM results "
            "WHERE uuid IN (SELECT uuid FROM deleted) ORDER BY segment, offset"
        )

    def files_to_mend(self) -> list[Path]:
        """The files of which something is to be taken out."""
        rows = self.db.execute("SELECT DISTINCT path FROM parts ORDER BY path")
        return [Path(path) for (path,) in rows.fetchall()]

    def parts(self, path: Path) -> Iterator[Part]:
        """What is to be taken out of a file, by offset."""
        query = "SELECT offset, length, uuid, image_index FROM parts WHERE path = ? ORDER BY offset"
        yield from (Part(*row) for row in self.db.execute(query, (str(path),)))

    def query(self, sql: str, values: Iterable[Any] = ()) -> list[Any]:
        """For comparisons with another database. Raises sqlite3.DatabaseError."""
        return self.db.execute(sql, tuple(values)).fetchall()

    def _is_in(self, table: str, uuid: str) -> bool:
        row = self.db.execute(f"SELECT 1 FROM {table} WHERE uuid = ?", (uuid,)).fetchone()
        return row is not None
