"""What bench/log.py compares: our log, SQLite as the store, version 1's list, and a bare append.

Each keeps the same records, and an append that returns is on disk. They measure nothing.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import orjson

from bench.log_records import Record
from gateway.http.json_array import array
from gateway.store.result_index import ResultIndex
from gpu_worker.store import durable, record_line
from gpu_worker.store.result_log import SEGMENT_BYTES, ResultLog
from gpu_worker.store.segments import Segment


class Store:
    """One folder of results. fill(), then open(), then the others, then close()."""

    reads: ClassVar[bool] = True
    rewrites: ClassVar[bool] = False
    """An append writes the whole store anew: of those only a few can be waited for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, given: Iterator[Record]) -> None:
        """Write many at once; on disk in the end, not one by one."""

    def open(self) -> None:
        """Be ready to look up."""

    def prepare(self, given: Record) -> Any:
        """What append() takes, made before the clock starts."""
        return given

    def append(self, prepared: Any) -> None:
        """One more record, on disk for good."""
        raise NotImplementedError

    def take_in(self) -> None:
        """Make what was appended findable, where append() alone does not."""

    def lookup(self, uuid: str) -> bytes | None:
        """The whole record as JSON."""
        raise NotImplementedError

    def page(self, limit: int, with_data: bool) -> bytes:
        """The newest as a JSON array; `data` is null without the pictures."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave it as a clean stop does."""


class Ours(Store):
    """The worker's ResultLog, and the gateway's ResultIndex that reads it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._index = ResultIndex(folder)
        self._log: ResultLog | None = None

    def fill(self, given: Iterator[Record]) -> None:
        number, room = 0, 0
        file = None
        for each in given:
            if file is None or room <= 0:
                _finish(file)
                number, room = number + 1, SEGMENT_BYTES
                file = open(self.folder / Segment("gpu-0", number, number).name, "wb")
            room -= file.write(record_line.encode(each))
        _finish(file)

    def open(self) -> None:
        self._index.open()

    def append(self, prepared: Record) -> None:
        if self._log is None:
            self._log = ResultLog(self.folder, "gpu-0")
            self._log.open()
        self._log.append(prepared)

    def take_in(self) -> None:
        if self._log is not None:
            self._index.refresh(*self._log.position)

    def lookup(self, uuid: str) -> bytes | None:
        return self._index.read(uuid)

    def page(self, limit: int, with_data: bool) -> bytes:
        # What GET /image/generate?limit= does.
        read = self._index.read if with_data else self._index.read_without_data
        return b"".join(array(self._index.newest_first(limit), read))

    def close(self) -> None:
        self._index.close()
        if self._log is not None:
            self._log.close()


class Sqlite(Store):
    """One table. synchronous=FULL syncs the WAL at each commit: as durable as our append."""

    _SCHEMA = """
    CREATE TABLE IF NOT EXISTS results (
        uuid TEXT PRIMARY KEY, sequence INTEGER NOT NULL, record BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS results_in_order ON results (sequence);
    """

    def fill(self, given: Iterator[Record]) -> None:
        self.open()
        with self._db:
            self._db.executemany(
                "INSERT INTO results VALUES (?, ?, ?)",
                ((each["uuid"], each["sequence"], orjson.dumps(each)) for each in given),
            )
        self.close()

    def open(self) -> None:
        self._db = sqlite3.connect(self.folder / "results.sqlite")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(self._SCHEMA)

    def append(self, prepared: Record) -> None:
        row = (prepared["uuid"], prepared["sequence"], orjson.dumps(prepared))
        with self._db:
            self._db.execute("INSERT INTO results VALUES (?, ?, ?)", row)

    def lookup(self, uuid: str) -> bytes | None:
        query = "SELECT record FROM results WHERE uuid = ?"
        row: tuple[bytes] | None = self._db.execute(query, (uuid,)).fetchone()
        return row[0] if row else None

    def page(self, limit: int, with_data: bool) -> bytes:
        query = "SELECT record FROM results ORDER BY sequence DESC LIMIT ?"
        found = [row[0] for row in self._db.execute(query, (limit,))]
        if not with_data:  # orjson is five times as fast here as SQLite's json_set
            return orjson.dumps([{**orjson.loads(text), "data": None} for text in found])
        return b"[" + b",".join(found) + b"]"

    def close(self) -> None:
        self._db.close()


class Seed(Store):
    """All results in a list; the whole list is written anew at each."""

    rewrites = True

    def fill(self, given: Iterator[Record]) -> None:
        with open(self._path, "wb") as file:
            for number, each in enumerate(given):
                file.write((b"," if number else b"[") + orjson.dumps(each))
            file.write(b"]")
            file.flush()
            os.fsync(file.fileno())

    def open(self) -> None:
        self._results: list[Record] = orjson.loads(self._path.read_bytes())

    def append(self, prepared: Record) -> None:
        self._results.append(prepared)
        durable.replace(self._path, orjson.dumps(self._results))

    def lookup(self, uuid: str) -> bytes | None:
        found = next((each for each in self._results if each["uuid"] == uuid), None)
        return orjson.dumps(found) if found else None

    def page(self, limit: int, with_data: bool) -> bytes:
        newest = self._results[: -limit - 1 : -1]
        return orjson.dumps(newest if with_data else [{**each, "data": None} for each in newest])

    @property
    def _path(self) -> Path:
        return self.folder / "results.json"


class Floor(Store):
    """The same bytes written and synced, and nothing else: no store can be faster than this."""

    reads = False

    def open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._descriptor = os.open(self.folder / "floor", flags, 0o600)

    def prepare(self, given: Record) -> bytes:
        return record_line.encode(given)

    def append(self, prepared: bytes) -> None:
        os.write(self._descriptor, prepared)
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def _finish(file: Any) -> None:
    if file is not None:
        file.flush()
        os.fsync(file.fileno())
        file.close()


STORES: dict[str, type[Store]] = {
    "ours": Ours,
    "SQLite": Sqlite,
    "seed's way": Seed,
    "floor": Floor,
}
