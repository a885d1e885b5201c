"""Lets a request wait without a thread. It is served again, from its beginning, when it may go on.

waitress has a thread for each request that it serves. A route whose answer takes minutes would
keep one for each client. Here the thread leaves the request, and the connection stays open.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from gateway.http.detached_stream import TASK

RESUMED = "gateway.resumed"
"""The key of the WSGI environment that holds what a request was resumed with, or None."""


class DeferredRequest:
    """A request that waits. Thread-safe.

    Its route must answer with nothing and return. The route is called again after resume(), and
    its environment has the value then. The body of the request is gone.

    Args:
        on_leave: is called once when the client leaves before resume(). It must not wait.
    """

    def __init__(self, environ: dict[str, Any], on_leave: Callable[[], None]) -> None:
        self._on_leave = on_leave
        self._lock = threading.Lock()
        self._resume: Callable[[object], None] | None = None
        self._value: object = None
        self._is_over = False
        environ[TASK].deferred = self

    def begin(self, resume: Callable[[object], None]) -> None:
        """Begin to wait. The connection calls it once its thread has left the request."""
        with self._lock:
            self._resume = resume
            is_due = self._is_over and self._value is not None
        if is_due:
            resume(self._value)

    def resume(self, value: object) -> None:
        """Have the request served again with this value, which is not None."""
        with self._lock:
            if self._is_over:
                return
            self._is_over, self._value = True, value
            resume = self._resume
        if resume is not None:
            resume(value)

    def leave(self) -> None:
        """Note that the client has left. The request is not served again."""
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
        self._on_leave()
