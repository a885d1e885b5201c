"""Keeps the tombstones: deletions that left the gateway's journal, in a file and in the index.

The file has a line for each job. Its one writer is the gateway. The lines are the journal's own
(docs/results-format.md).
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gateway.store import journal_event
from gpu_worker.store import durable, scan
from gpu_worker.store.durable import AppendFile, DamagedLine, NewerLine, StoreTooNew

log = logging.getLogger(__name__)


def append(path: Path, deleted: Mapping[str, str | None]) -> None:
    """Append deletions, uuid -> submission; they are on disk when this returns.

    Raises:
        OSError: the disk refuses them; the next call cuts what was written in part.
    """
    file = AppendFile(path)
    cut = file.open()
    if cut:
        log.warning("%s: a torn line of %d bytes was cut", path.name, cut)
    try:
        file.append(b"".join(encode(uuid, submission) for uuid, submission in deleted.items()))
    finally:
        file.close()


def encode(uuid: str, submission: str | None) -> bytes:
    """Return one line with its newline."""
    event = {"event": "deleted", "uuid": uuid, "submission": submission}
    return journal_event.encode(event)


def read(path: Path, start: int) -> Iterator[tuple[int, str, str | None]]:
    """Yield the end, uuid and submission of each whole line from an offset on.

    A damaged line is skipped and logged. Raises StoreTooNew, OSError.
    """
    with durable.open_plain(path, scan.CHUNK_BYTES) as file:
        for offset, length, text in scan.whole_lines(file, start):
            try:
                uuid, submission = _decode(text or b"")
            except NewerLine as error:
                raise StoreTooNew(path, error) from None
            except DamagedLine as error:
                log.warning("%s: the line at %d is skipped: it %s", path.name, offset, error)
            else:
                yield offset + length, uuid, submission


def _decode(text: bytes) -> tuple[str, str | None]:
    match journal_event.decode(text):
        case {"event": "deleted", "uuid": str(uuid), "submission": str() | None as key}:
            return uuid, key
    raise DamagedLine(f"is not a tombstone of version {journal_event.VERSION}")


class TombstoneTable:
    """The tables of deletions in an open index. Raises as IndexDb does."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def read_to(self) -> int:
        """Return how far the file of tombstones has been read, in bytes."""
        return int(self._db.execute("SELECT read_to FROM deletions_read").fetchone()[0])

    def add(self, deleted: Sequence[tuple[str, str | None]], read_to: int) -> None:
        """Add uuids with their submissions and remove their records, in one transaction."""
        with self._db:
            self._db.executemany("INSERT OR IGNORE INTO deletions VALUES (?, ?)", deleted)
            uuid_rows = [(uuid,) for uuid, _ in deleted]
            self._db.executemany("DELETE FROM results WHERE uuid = ?", uuid_rows)
            self._db.execute("UPDATE deletions_read SET read_to = ?", (read_to,))

    def has(self, uuid: str) -> bool:
        """Return whether a job was deleted."""
        query = "SELECT 1 FROM deletions WHERE uuid = ?"
        return self._db.execute(query, (uuid,)).fetchone() is not None

    def find_submission(self, key: str) -> tuple[str, str] | None:
        """Return the uuid and the submission of the deleted job with this key's digest."""
        query = (
            "SELECT uuid, submission FROM deletions WHERE submission > ? AND submission < ? LIMIT 1"
        )
        row = self._db.execute(query, (f"{key}:", f"{key};")).fetchone()
        return (row[0], row[1]) if row else None
