"""Names the limits of the HTTP server, and holds the budget of request bodies in memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass

FREE_BYTES = 64 << 10
"""The first bytes of each body need no budget, so that a request without images always passes."""


@dataclass(frozen=True)
class HttpLimits:
    """The limits of the HTTP server. GatewaySettings documents each.

    `max_waiting_per_address` counts connections whose request is incomplete or has not begun.
    `max_uploads_bytes` is the size of all bodies that are in memory at a time.
    """

    max_body_bytes: int = 64 << 20
    max_header_bytes: int = 32 << 10
    max_connections: int = 500
    max_waiting_per_address: int = 100
    request_timeout_s: float = 60.0
    max_uploads_bytes: int = 256 << 20


class UploadBudget:
    """Counts the bytes of all request bodies in memory. Thread-safe, and it never waits."""

    def __init__(self, size_bytes: int) -> None:
        self._free = size_bytes
        self._lock = threading.Lock()

    @property
    def free_bytes(self) -> int:
        """Return the bytes that are free now."""
        return self._free

    def take(self, size_bytes: int) -> bool:
        """Take bytes, and return whether there were enough."""
        with self._lock:
            if size_bytes > self._free:
                return False
            self._free -= size_bytes
            return True

    def give_back(self, size_bytes: int) -> None:
        """Give bytes back that were taken."""
        with self._lock:
            self._free += size_bytes
