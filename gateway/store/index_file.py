"""Keeps the index's tables usable: up to date, made anew when they are damaged, and in memory while
the disk takes no writes. A leaf. What is asked of them, ResultIndex knows."""

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
"""How often a disk is asked again whether it takes the index."""

SPARE_BYTES = 1 << 20
"""Of free disk, beyond the growth of the file, before it is tried: a try may read pictures."""

Answer = TypeVar("Answer")


class IndexFile:
    """The index of one directory. Thread-safe; `lock` is held by who asks several things."""

    def __init__(self, directory: Path, indexer: Indexer) -> None:
        self._path = directory / INDEX_NAME
        self._indexer = indexer
        self._db: IndexDb | None = None
        self._try_again_at: float | None = None
        self.lock = threading.RLock()

    @property
    def db(self) -> IndexDb:
        """The open index, for who holds the lock. Raises RuntimeError when it is not open."""
        if self._db is None:
            raise RuntimeError("the index is not open")
        return self._db

    def open(self) -> None:
        """Take it up and bring it up to date with the segments; a bad one is made anew, one that
        cannot be written is read as it is, or goes on in memory until it can.

        Raises:
            OSError: the directory or a segment cannot be read.
        """
        with self.lock:
            try:
                self._take_up()
            except sqlite3.OperationalError as error:
                self._go_on_in_memory(error)
            except sqlite3.DatabaseError as error:
                self._rebuild(error)

    def close(self) -> None:
        """Close it."""
        with self.lock:
            if self._db is not None:
                self._db.close()
                self._db, self._try_again_at = None, None

    def query(self, question: Callable[[IndexDb], Answer]) -> Answer:
        """A damaged one is made anew, and asked again. Raises sqlite3.OperationalError."""
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

    def _take_up(self) -> None:
        """Open the file and read on. Raises OSError, sqlite3.DatabaseError."""
        try:
            self._db = IndexDb(self._path)
        except sqlite3.OperationalError:
            self._db = IndexDb(self._path, alone=True)
        self._indexer.catch_up(self._db)

    def _rebuild(self, error: Exception) -> None:
        log.warning("the index is damaged (%s); it is made anew from the log", error)
        self.close()
        try:
            for part in files(self._path):
                part.unlink(missing_ok=True)
            self._take_up()
        except (OSError, sqlite3.DatabaseError) as refusal:
            self._go_on_in_memory(refusal)

    def _go_on_in_memory(self, error: Exception) -> None:
        """A full or read-only disk: results can still be found, and the file stays as it is.
        What it says is copied, so that only what it lacks is read from the segments."""
        log.warning("the index cannot be written (%s); it goes on in memory until it can", error)
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
        """From memory to the file, if the disk takes it now."""
        self._try_again_at = time.monotonic() + RETRY_S
        held = self._db
        if held is None or not self._has_room_for(held):
            return
        try:
            self._take_up()
        except (OSError, sqlite3.DatabaseError) as error:
            if self._db is not None and self._db is not held:
                self._db.close()
            self._db = held
            log.warning("the index cannot be written yet: %s", error)
            if not isinstance(error, (OSError, sqlite3.OperationalError)):
                for part in files(self._path):  # damaged: made anew at the next try
                    part.unlink(missing_ok=True)
            return
        log.info("the index can be written again")
        self._try_again_at = None
        held.close()

    def _has_room_for(self, held: IndexDb) -> bool:
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return False
        size = 0
        with contextlib.suppress(OSError):
            size = self._path.stat().st_size
        wanted = max(0, held.size_bytes() - size) + SPARE_BYTES
        return disk.f_bavail * disk.f_frsize >= wanted
