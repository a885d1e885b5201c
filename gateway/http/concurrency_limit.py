"""Limits how many long responses are sent at a time. It never waits."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gateway.errors import TooManyStreams


class ConcurrencyLimit:
    """A counter of concurrent responses with a limit. Thread-safe.

    Args:
        what: names the responses in the refusal, such as `streams of events`.
        retry_after_s: seconds until a client should try again.
    """

    def __init__(self, count: int, what: str, retry_after_s: int) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._what = what
        self._retry_after_s = retry_after_s

    def acquire(self) -> Callable[[], None]:
        """Occupy a place and return the function that releases it. Releasing twice is harmless.

        Raises:
            TooManyStreams: every place is occupied.
        """
        if not self._free.acquire(blocking=False):
            raise TooManyStreams(self._what, self._retry_after_s)
        held = threading.Lock()

        def release() -> None:
            if held.acquire(blocking=False):
                self._free.release()

        return release
