"""Lets a few requests at a time do what takes much memory. The number of the others is bounded."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from gateway.errors import TooManyUploads


class Turns:
    """A number of turns, and a number of threads that may wait for one. Thread-safe.

    Args:
        patience_s: how long a thread waits for its turn.
    """

    def __init__(self, turns: int, waiting: int, patience_s: float) -> None:
        self._free = threading.BoundedSemaphore(turns)
        self._places = threading.BoundedSemaphore(waiting)
        self._patience_s = patience_s

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn and hold it.

        Raises:
            TooManyUploads: too many others wait, or it took too long.
        """
        if not self._free.acquire(blocking=False):
            self._wait()
        try:
            yield
        finally:
            self._free.release()

    def _wait(self) -> None:
        if not self._places.acquire(blocking=False):
            raise TooManyUploads
        try:
            if not self._free.acquire(timeout=self._patience_s):
                raise TooManyUploads
        finally:
            self._places.release()
