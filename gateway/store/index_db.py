"""The index's tables in SQLite: where each record is. They are a cache of the log.

It holds SQL and rows only and reads no segment. Not thread-safe: IndexFile holds a lock.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from gateway.store.gallery import image_table, label_table
from gateway.store.gallery.image_search import ImageSearch
from gateway.store.gallery.label_table import LabelTable
from gateway.store.tombstones import TombstoneTable
from gpu_worker.store import durable

VERSION = 5

_SCHEMA = """
CREATE TABLE results (
    uuid TEXT NOT NULL, image_index INTEGER NOT NULL, num_images INTEGER NOT NULL,
    sequence INTEGER NOT NULL, state TEXT NOT NULL, segment TEXT NOT NULL,
    offset INTEGER NOT NULL, length INTEGER NOT NULL,
    data_at INTEGER NOT NULL, data_length INTEGER NOT NULL, submission TEXT,
    hidden INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (uuid, image_index)
) WITHOUT ROWID;
CREATE INDEX results_in_order ON results (sequence, uuid, image_index);
CREATE INDEX results_of_submission ON results (submission) WHERE submission IS NOT NULL;
CREATE INDEX results_of_segment ON results (segment, offset, length);
CREATE TABLE segments (
    name TEXT PRIMARY KEY, read_to INTEGER NOT NULL, damaged INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE deletions (uuid TEXT PRIMARY KEY, submission TEXT) WITHOUT ROWID;
CREATE INDEX deletions_of_submission ON deletions (submission) WHERE submission IS NOT NULL;
CREATE TABLE deletions_read (read_to INTEGER NOT NULL);
INSERT INTO deletions_read VALUES (0);
""" + "".join((image_table.SCHEMA, label_table.SCHEMA))
"""`hidden` says that the image is in the trash, where no reader of results finds it."""


def files(path: Path) -> list[Path]:
    """Return the database's path and those beside it in WAL mode (sqlite.org/walformat.html)."""
    return [path.with_name(path.name + end) for end in ("", "-wal", "-shm")]


def connect(path: Path, *, alone: bool = False) -> sqlite3.Connection:
    """Open the database and create its tables in a new one.

    Args:
        alone: no other process may open the file. Then SQLite needs no shared memory beside it
            (sqlite.org/wal.html, "use of WAL without shared-memory"), so a full disk can be read.

    Raises:
        OSError: the file is a symbolic link, which SQLite would follow.
        sqlite3.DatabaseError: the file is damaged or of another version.
        sqlite3.OperationalError: the disk refuses it.
    """
    for part in files(path):
        durable.refuse_link(part)
    db = sqlite3.connect(path, check_same_thread=False, timeout=10)
    try:
        if alone:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
        # NORMAL with WAL: a power cut may lose the newest rows (they are read again from the
        # log) but never damages the file (sqlite.org/pragma.html#pragma_synchronous).
        db.execute("PRAGMA synchronous = NORMAL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            db.execute("PRAGMA journal_mode = WAL")  # the file remembers it
            # One transaction: a kill leaves all of it or nothing.
            db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {VERSION};COMMIT;")
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"is of version {version}")
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db


class Entry(NamedTuple):
    """The place of a record: `length` bytes from `offset` of `segment`, the newline included.

    It is the `image_index`-th, from 0, of the `num_images` of its job.
    `data_at` and `data_length` locate the base64 text in the line; the length is 0 for null.
    """

    uuid: str
    image_index: int
    num_images: int
    sequence: int
    state: str
    segment: str
    offset: int
    length: int
    data_at: int
    data_length: int
    submission: str | None


class Totals(NamedTuple):
    """Totals of the log: records, their bytes, and damaged lines."""

    results: int
    live_bytes: int
    damaged_lines: int


COLUMNS = ", ".join(Entry._fields)
_FIND = f"SELECT {COLUMNS} FROM results WHERE uuid = ? AND NOT hidden ORDER BY image_index"
_FIND_RECORDS = f"SELECT {COLUMNS} FROM results WHERE uuid = ? ORDER BY image_index"
_WHERE = (
    "SELECT segment, offset, length FROM results "
    "WHERE uuid = ? AND NOT hidden ORDER BY image_index LIMIT 1"
)
_FIND_IMAGE = f"""SELECT {COLUMNS} FROM results
WHERE uuid = ? AND image_index = ? AND (NOT hidden OR ?)"""
_REST = (
    f"SELECT {COLUMNS} FROM results WHERE uuid = ? AND image_index < ? AND NOT hidden "
    "ORDER BY image_index DESC"
)
_MARKS = ", ".join(f"?{number}" for number in range(1, len(Entry._fields) + 1))
INSERT_FIRST = (
    f"INSERT INTO results ({COLUMNS}) SELECT {_MARKS} WHERE NOT EXISTS "
    "(SELECT 1 FROM results WHERE uuid = ?1 AND (image_index = ?2 OR num_images != ?3))"
)
"""The first outcome of a job counts: neither the same record once more, nor one of another kind."""

_MOVE = (
    "UPDATE results SET num_images = ?3, sequence = ?4, state = ?5, segment = ?6, offset = ?7, "
    "length = ?8, data_at = ?9, data_length = ?10, submission = ?11 "
    "WHERE uuid = ?1 AND image_index = ?2"
)


class IndexDb:
    """The open database.

    Every method raises sqlite3.DatabaseError when the file is damaged, and its subclass
    sqlite3.OperationalError when the disk refuses a write.

    Args:
        alone: as for connect().

    `tombstones` are the deletions that it has read. `images` searches, and `labels` are the copy of
    the log of labels.
    """

    def __init__(self, path: Path, *, alone: bool = False) -> None:
        self._db = connect(path, alone=alone)
        self.tombstones = TombstoneTable(self._db)
        self.images = ImageSearch(self._db)
        self.labels = LabelTable(self._db)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def copy_from(self, other: IndexDb) -> None:
        """Copy another database into this one, page by page."""
        other._db.backup(self._db)

    def size_bytes(self) -> int:
        """Return the size of all pages."""
        query = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        return int(self._db.execute(query).fetchone()[0])

    # ---- segments -----------------------------------------------------------------------------

    def segments(self) -> dict[str, int]:
        """Return how far each segment has been read, in bytes."""
        return dict(self._db.execute("SELECT name, read_to FROM segments").fetchall())

    def read_to(self, name: str) -> int | None:
        """Return how far a segment has been read, in bytes; None when it is unknown."""
        query = "SELECT read_to FROM segments WHERE name = ?"
        row = self._db.execute(query, (name,)).fetchone()
        return int(row[0]) if row else None

    def checkpoint(self) -> None:
        """Move the WAL into the file, because a lookup in a long WAL is slow."""
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all that the block writes, or nothing. Within another one it is a part of it."""
        if self._db.in_transaction:
            yield
            return
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield

    def forget_segment(self, name: str) -> None:
        """Drop a segment and its records."""
        with self.transaction():
            self._db.execute("DELETE FROM results WHERE segment = ?", (name,))
            self._db.execute("DELETE FROM segments WHERE name = ?", (name,))

    def is_sound(self, name: str, size: int) -> bool:
        """Return whether a segment has been read to `size` without damage."""
        query = "SELECT 1 FROM segments WHERE name = ? AND read_to = ? AND damaged = 0"
        return self._db.execute(query, (name, size)).fetchone() is not None

    def live_bytes(self) -> dict[str, int]:
        """Return the bytes of indexed records of each segment."""
        query = "SELECT segment, SUM(length) FROM results GROUP BY segment"
        return dict(self._db.execute(query).fetchall())

    def add(
        self, name: str, records: Iterable[tuple[Entry, bytes]], read_to: int, damaged: int
    ) -> list[Entry]:
        """Add what was read of a segment in one transaction. A job's first outcome counts.

        Args:
            records: each entry with its line, in which `data` is null.

        Returns:
            The entries that are new.
        """
        new_entries: list[Entry] = []
        with self.transaction():
            for entry, metadata in records:
                if self._db.execute(INSERT_FIRST, entry).rowcount:
                    new_entries.append(entry)
                    image_table.insert(
                        self._db, entry.uuid, entry.image_index, entry.num_images, metadata
                    )
            self._db.execute(
                "INSERT INTO segments VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
                "read_to = excluded.read_to, damaged = damaged + excluded.damaged",
                (name, read_to, damaged),
            )
        return new_entries

    def move(self, old: Iterable[str], name: str, entries: Iterable[Entry], size: int) -> None:
        """Replace the segments `old` by `name` in one transaction; readers see one of them."""
        with self._db:
            for segment in old:
                # What is not moved is removed, with its image. A moved row keeps its image.
                self._db.execute("UPDATE results SET segment = '' WHERE segment = ?", (segment,))
                self._db.execute("DELETE FROM segments WHERE name = ?", (segment,))
            self._db.executemany(_MOVE, entries)
            self._db.execute("DELETE FROM results WHERE segment = ''")
            self._db.execute("INSERT INTO segments VALUES (?, ?, 0)", (name, size))

    # ---- results ------------------------------------------------------------------------------

    def find_all(self, uuid: str) -> list[Entry]:
        """Return the entries of a job in their order."""
        return [Entry._make(row) for row in self._db.execute(_FIND, (uuid,))]

    def find_records(self, uuid: str) -> list[Entry]:
        """Return the entries of a job in their order, those in the trash too."""
        return [Entry._make(row) for row in self._db.execute(_FIND_RECORDS, (uuid,))]

    def is_hidden(self, uuid: str, image_index: int) -> bool:
        """Return whether an image is in the trash."""
        query = "SELECT hidden FROM results WHERE uuid = ? AND image_index = ?"
        row = self._db.execute(query, (uuid, image_index)).fetchone()
        return bool(row and row[0])

    def is_trashed(self, uuid: str) -> bool:
        """Return whether a job has images and all of them are in the trash."""
        query = "SELECT MIN(hidden) FROM results WHERE uuid = ?"
        return bool(self._db.execute(query, (uuid,)).fetchone()[0])

    def find_image(self, uuid: str, image_index: int, *, trash: bool) -> Entry | None:
        """Return the entry of one image of a job; with `trash` also one in the trash."""
        row = self._db.execute(_FIND_IMAGE, (uuid, image_index, trash)).fetchone()
        return Entry._make(row) if row else None

    def location(self, uuid: str) -> tuple[str, int, int] | None:
        """Return segment, offset and length of a job's first record, enough to read it whole."""
        return self._db.execute(_WHERE, (uuid,)).fetchone()  # type: ignore[no-any-return]

    def find_submission(self, key: str) -> tuple[str, str] | None:
        """Return the uuid and the submission of the job that was sent with this key's digest."""
        query = (
            "SELECT uuid, submission FROM results WHERE submission > ? AND submission < ? LIMIT 1"
        )
        row = self._db.execute(query, (f"{key}:", f"{key};")).fetchone()
        return (row[0], row[1]) if row else None

    def delete_all(self, uuids: Iterable[str]) -> None:
        """Remove the records of these jobs."""
        rows = [(uuid,) for uuid in uuids]
        if rows:
            with self._db:
                self._db.executemany("DELETE FROM results WHERE uuid = ?", rows)

    def after(self, mark: tuple[int, str, int], limit: int) -> list[Entry]:
        """Return the records after (sequence, uuid, image_index), oldest first."""
        query = (
            f"SELECT {COLUMNS} FROM results WHERE (sequence, uuid, image_index) > (?, ?, ?) "
            "AND NOT hidden ORDER BY sequence, uuid, image_index LIMIT ?"
        )
        return [Entry._make(row) for row in self._db.execute(query, (*mark, limit))]

    def before(self, mark: tuple[int, str], limit: int) -> list[Entry]:
        """Return `limit` records of jobs before (sequence, uuid), newest first.

        The rest of the last job follows, so that a page holds whole jobs.
        """
        query = (
            f"SELECT {COLUMNS} FROM results WHERE (sequence, uuid) < (?, ?) "
            "AND NOT hidden ORDER BY sequence DESC, uuid DESC, image_index DESC LIMIT ?"
        )
        page = [Entry._make(row) for row in self._db.execute(query, (*mark, limit))]
        if page and page[-1].image_index > 0:
            rest = self._db.execute(_REST, (page[-1].uuid, page[-1].image_index))
            page += map(Entry._make, rest)
        return page

    def records_of(self, name: str) -> list[Entry]:
        """Return the records of one segment by offset."""
        query = f"SELECT {COLUMNS} FROM results WHERE segment = ? ORDER BY offset"
        return [Entry._make(row) for row in self._db.execute(query, (name,))]

    def last_sequence(self) -> int:
        """Return the highest sequence number, 0 without records."""
        return int(self._db.execute("SELECT MAX(sequence) FROM results").fetchone()[0] or 0)

    def totals(self) -> Totals:
        """Return the totals of the log."""
        results, size = self._db.execute("SELECT COUNT(*), SUM(length) FROM results").fetchone()
        damaged = self._db.execute("SELECT SUM(damaged) FROM segments").fetchone()[0]
        return Totals(results, size or 0, damaged or 0)
