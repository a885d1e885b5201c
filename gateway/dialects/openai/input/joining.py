"""Lets a request that its client repeats after a time-out join the job that it has already."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

import falcon

JOIN_S = 900.0
"""How long a request can be joined. The SDK of OpenAI gives up after 600 seconds."""

MAX_REQUESTS = 4096
"""Above it the oldest request is forgotten."""

RETRY_COUNT = "x-stainless-retry-count"


class RecentRequests:
    """The jobs of recent requests, by a digest of all that a client sent. Thread-safe.

    Clients that send the same request several times at once have a job each, and their
    repetitions join these jobs in turn.

    Args:
        may_join: returns whether a job still has, or may get, an image.
    """

    def __init__(
        self, may_join: Callable[[str], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._may_join = may_join
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, deque[tuple[float, str]]] = OrderedDict()

    def add(self, digest: str, uuid: str) -> None:
        """Remember the job of a request."""
        with self._lock:
            self._jobs.setdefault(digest, deque()).append((self._clock(), uuid))
            self._jobs.move_to_end(digest)
            while len(self._jobs) > MAX_REQUESTS:
                self._jobs.popitem(last=False)

    def find(self, digest: str) -> str | None:
        """Return the job that a repeated request joins; None if it needs a new one."""
        with self._lock:
            jobs = self._jobs.get(digest, deque())
            for _ in range(len(jobs)):
                began, uuid = jobs.popleft()
                if self._clock() - began < JOIN_S and self._may_join(uuid):
                    jobs.append((began, uuid))
                    return uuid
            self._jobs.pop(digest, None)
            return None


def is_repeated(req: falcon.Request) -> bool:
    """Return whether the SDK sends a request once more."""
    count = req.get_header(RETRY_COUNT) or ""
    return count.isascii() and count.isdigit() and int(count[:9]) > 0


def digest(*parts: str) -> str:
    """Return one digest of several texts."""
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()
