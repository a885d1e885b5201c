"""What was deleted for good, in the index: looked up by uuid or key, never held in memory. A leaf.

It is a cache of the file of deletions, and knows how far it has read that one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence


class Buried:
    """The deletions' tables of an open index. Not thread-safe; raises as Catalog does."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def read_to(self) -> int:
        """How far the file of deletions has been read, in bytes."""
        return int(self._db.execute("SELECT read_to FROM deletions_read").fetchone()[0])

    def add(self, deleted: Sequence[tuple[str, str | None]], read_to: int) -> None:
        """Take in uuids with their submissions. What the index has of them goes in the same
        transaction: a power cut that brings that back has this read once more."""
        with self._db:
            self._db.executemany("INSERT OR IGNORE INTO deletions VALUES (?, ?)", deleted)
            gone = [(uuid,) for uuid, _ in deleted]
            self._db.executemany("DELETE FROM results WHERE uuid = ?", gone)
            self._db.execute("UPDATE deletions_read SET read_to = ?", (read_to,))

    def has(self, uuid: str) -> bool:
        """Whether it was deleted."""
        query = "SELECT 1 FROM deletions WHERE uuid = ?"
        return self._db.execute(query, (uuid,)).fetchone() is not None

    def find_submission(self, key: str) -> tuple[str, str] | None:
        """The uuid and the submission of the deleted job that came with this key's digest."""
        query = (
            "SELECT uuid, submission FROM deletions WHERE submission > ? AND submission < ? LIMIT 1"
        )
        found = self._db.execute(query, (f"{key}:", f"{key};")).fetchone()
        return (found[0], found[1]) if found else None
