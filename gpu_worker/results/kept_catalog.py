"""Keeps the index's tables usable: opened and up to date, and made anew when they are damaged.
A leaf. What they say is a cache of the log; what is asked of them, ResultIndex knows."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gpu_worker.results.catalog import Catalog, files
from gpu_worker.results.reading import Reading

log = logging.getLogger(__name__)

INDEX_NAME = "index.sqlite"

Answer = TypeVar("Answer")


class KeptCatalog:
    """The catalog of one directory. Thread-safe; `lock` is held by who asks several things."""

    def __init__(self, directory: Path, reading: Reading) -> None:
        self._path = directory / INDEX_NAME
        self._reading = reading
        self._catalog: Catalog | None = None
        self.lock = threading.RLock()

    @property
    def db(self) -> Catalog:
        """The open catalog, for who holds the lock. Raises RuntimeError when it is not open."""
        if self._catalog is None:
            raise RuntimeError("the index is not open")
        return self._catalog

    def open(self) -> None:
        """Take it up and bring it up to date with the segments; a bad one is made anew.

        Raises:
            OSError: the directory or a segment cannot be read.
        """
        with self.lock:
            try:
                self._catalog = Catalog(self._path)
                self._reading.catch_up(self.db)
            except sqlite3.DatabaseError as error:
                self._rebuild(error)

    def close(self) -> None:
        """Close it."""
        with self.lock:
            if self._catalog is not None:
                self._catalog.close()
                self._catalog = None

    def ask(self, question: Callable[[Catalog], Answer]) -> Answer:
        """A damaged one is made anew, and asked again. Raises sqlite3.OperationalError."""
        with self.lock:
            try:
                return question(self.db)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._rebuild(error)
                return question(self.db)

    def _rebuild(self, error: Exception) -> None:
        log.warning("the index is damaged (%s); it is made anew from the log", error)
        self.close()
        try:
            for part in files(self._path):
                part.unlink(missing_ok=True)
            self._catalog = Catalog(self._path)
            self._reading.catch_up(self.db)
        except (OSError, sqlite3.DatabaseError) as refusal:
            # A full or read-only disk: results can still be read.
            log.warning("the index cannot be written (%s); it is kept in memory", refusal)
            self.close()
            self._catalog = Catalog(Path(":memory:"))
            self._reading.catch_up(self.db)
