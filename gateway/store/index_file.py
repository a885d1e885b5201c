"""Keeps the index's file usable: current, rebuilt when damaged, in memory while the disk is full.

ResultIndex has the queries.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gateway.store.index_db import IndexDb, files
from gateway.store.indexer import Indexer

log = logging.getLogger(__name__)

INDEX_NAME = "index.sqlite"

RETRY_S = 5.0
"""Seconds between two tries to return from memory to the file."""

SPARE_BYTES = 1 << 20
"""Free bytes, beside the growth of the file, before a try: a try may read whole records."""

Answer = TypeVar("Answer")


class IndexFile:
    """The index of one directory. It is thread-safe. A caller of several queries holds `lock`."""

    def __init__(self, directory: Path, indexer: Indexer) -> None:
        self._path = directory / INDEX_NAME
        self._indexer = indexer
        self._db: IndexDb | None = None
        self._try_again_at: float | None = None
        self.lock = threading.RLock()

    @property
    def db(self) -> IndexDb:
        """Return the open database. The caller holds the lock. Raises RuntimeError if closed."""
        if self._db is None:
            raise RuntimeError("the index is not open")
        return self._db

    def open(self) -> None:
        """Open the file and bring it up to date with the segments.

        A damaged file is rebuilt. One that cannot be written is continued in memory.

        Raises:
            OSError: the directory or a segment cannot be read.
        """
        with self.lock:
            try:
                self._open_file()
            except sqlite3.OperationalError as error:
                self._continue_in_memory(error)
            except sqlite3.DatabaseError as error:
                self._rebuild(error)

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            if self._db is not None:
                self._db.close()
                self._db, self._try_again_at = None, None

    def query(self, question: Callable[[IndexDb], Answer]) -> Answer:
        """Return the answer of the database. A damaged one is rebuilt and asked again.

        Raises:
            sqlite3.OperationalError: the disk refuses it.
        """
        with self.lock:
            if self._try_again_at is not None and time.monotonic() >= self._try_again_at:
                self._return()
            try:
                return question(self.db)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._rebuild(error)
                return question(self.db)

    def _open_file(self) -> None:
        """Open the file and read on. Raises OSError, sqlite3.DatabaseError."""
        try:
            self._db = IndexDb(self._path)
        except sqlite3.OperationalError:
            self._db = IndexDb(self._path, alone=True)
        self._indexer.catch_up(self._db)

    def _rebuild(self, error: Exception) -> None:
        log.warning("the index is damaged (%s) and is rebuilt from the log", error)
        self.close()
        try:
            for part in files(self._path):
                part.unlink(missing_ok=True)
            self._open_file()
        except (OSError, sqlite3.DatabaseError) as refusal:
            self._continue_in_memory(refusal)

    def _continue_in_memory(self, error: Exception) -> None:
        """Copy the index into memory: on a full or read-only disk results must still be found.

        Only what the file lacks is read from the segments. The file stays unchanged.
        """
        log.warning("the index cannot be written (%s); it continues in memory until it can", error)
        file, self._db = self._db, IndexDb(Path(":memory:"))
        if file is not None:
            try:
                self._db.copy_from(file)
            except sqlite3.DatabaseError as damage:
                log.warning("the index cannot be copied (%s)", damage)
                self._db = IndexDb(Path(":memory:"))
            finally:
                file.close()
        self._try_again_at = time.monotonic() + RETRY_S
        self._indexer.catch_up(self._db)

    def _return(self) -> None:
        """Return from memory to the file, if the disk accepts it now."""
        self._try_again_at = time.monotonic() + RETRY_S
        memory_db = self._db
        if memory_db is None or not self._has_room_for(memory_db):
            return
        try:
            self._open_file()
        except (OSError, sqlite3.DatabaseError) as error:
            if self._db is not None and self._db is not memory_db:
                self._db.close()
            self._db = memory_db
            log.warning("the index cannot be written yet: %s", error)
            if not isinstance(error, (OSError, sqlite3.OperationalError)):
                for part in files(self._path):  # damaged, so the next try rebuilds it
                    part.unlink(missing_ok=True)
            return
        log.info("the index can be written again")
        self._try_again_at = None
        memory_db.close()

    def _has_room_for(self, memory_db: IndexDb) -> bool:
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return False
        size = 0
        with contextlib.suppress(OSError):
            size = self._path.stat().st_size
        size_needed = max(0, memory_db.size_bytes() - size) + SPARE_BYTES
        return disk.f_bavail * disk.f_frsize >= size_needed
