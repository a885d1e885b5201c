"""A bounded number of places for replies that keep a thread for long. It waits for nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gateway.errors import TooManyStreams


class ConcurrencyLimit:
    """So many at a time. Thread-safe.

    Args:
        what: is refused when all are taken, in words: `streams of events`.
        retry_after_s: when to try again then.
    """

    def __init__(self, count: int, what: str, retry_after_s: int) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._what = what
        self._retry_after_s = retry_after_s

    def acquire(self) -> Callable[[], None]:
        """Occupy a place; call the result to release it, which may be done more than once.

        Raises:
            TooManyStreams: all are taken.
        """
        if not self._free.acquire(blocking=False):
            raise TooManyStreams(self._what, self._retry_after_s)
        held = threading.Lock()

        def release() -> None:
            if held.acquire(blocking=False):
                self._free.release()

        return release
