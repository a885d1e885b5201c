"""The index's database: its tables, its files, and how it is opened. A leaf; reads no segment."""

from __future__ import annotations

import sqlite3
from pathlib import Path

VERSION = 4

_SCHEMA = """
CREATE TABLE results (
    uuid TEXT NOT NULL, image_index INTEGER NOT NULL, num_images INTEGER NOT NULL,
    sequence INTEGER NOT NULL, state TEXT NOT NULL, segment TEXT NOT NULL,
    offset INTEGER NOT NULL, length INTEGER NOT NULL,
    data_at INTEGER NOT NULL, data_length INTEGER NOT NULL, submission TEXT,
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
"""


def files(path: Path) -> list[Path]:
    """The database, and what SQLite keeps beside it in WAL mode (sqlite.org/walformat.html)."""
    return [path.with_name(path.name + end) for end in ("", "-wal", "-shm")]


def connect(path: Path, *, alone: bool = False) -> sqlite3.Connection:
    """Open the database, and make its tables in a new one.

    Args:
        alone: nobody else may open the file. Then SQLite needs no shared memory beside it
            (sqlite.org/wal.html, "use of WAL without shared-memory"), for which a full disk has no
            room: what is there can be read.

    Raises:
        sqlite3.DatabaseError: it is damaged, or of another version.
        sqlite3.OperationalError: the disk does not take it.
    """
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
            # One transaction: killed in between, the next start finds nothing of it.
            db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {VERSION};COMMIT;")
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"is of version {version}")
    except sqlite3.DatabaseError:
        db.close()
        raise
    return db
