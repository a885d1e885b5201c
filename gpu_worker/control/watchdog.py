"""Ends a process that hangs, with faulthandler's thread, which needs no GIL.

A step has a fixed limit. While a model is loaded, the limit begins anew as long as bytes move.
"""

from __future__ import annotations

import faulthandler
import logging
import threading
import time
from collections.abc import Callable

REARM_S = 1.0
"""Arming faulthandler costs ~1.7 ms, so the deadline moves at most once a second."""

POLL_S = 0.25
"""The time between two looks at the bytes. It is shorter than REARM_S, so that a stall is reported
before the process ends."""

log = logging.getLogger(__name__)


def _never() -> bool:
    return False


class StepWatchdog:
    """The limit of `timeout_s` for each step, and for a load in which nothing moves.

    `has_moved` says whether bytes have moved since its last call. `on_stall` gets a sentence just
    before the process ends, unless the GIL is held. A process has one watchdog at a time.
    """

    def __init__(
        self,
        timeout_s: float,
        has_moved: Callable[[], bool] = _never,
        on_stall: Callable[[str], object] = log.critical,
    ) -> None:
        self._timeout_s = timeout_s
        self._has_moved = has_moved
        self._on_stall = on_stall
        self._armed_at = 0.0
        self._lock = threading.Lock()
        self._loaded = threading.Event()

    def arm(self, now: float) -> None:
        """Start the limit of a load, which ends with the first step.

        It also ends a process that hangs in C code.
        """
        self._loaded = threading.Event()
        self._restart(now)
        watch = threading.Thread(target=self._watch, args=(self._loaded,), name="loading")
        watch.daemon = True
        watch.start()

    def move(self, now: float) -> None:
        """Restart the limit after a step. From now on only steps move it."""
        with self._lock:
            self._loaded.set()
            if now - self._armed_at >= REARM_S:
                self._restart(now)

    def cancel(self) -> None:
        """Stop the limit, because no step is running."""
        with self._lock:
            self._loaded.set()
            faulthandler.cancel_dump_traceback_later()

    def _restart(self, now: float) -> None:
        faulthandler.dump_traceback_later(self._timeout_s + REARM_S, exit=True)
        self._armed_at = now

    def _watch(self, loaded: threading.Event) -> None:
        """Restart the limit whenever bytes have moved, until the load has ended."""
        moved_at = time.monotonic()
        self._has_moved()
        while not loaded.wait(POLL_S):
            if self._has_moved():
                moved_at = time.monotonic()
                with self._lock:
                    if not loaded.is_set():
                        self._restart(self._armed_at)
            elif time.monotonic() - moved_at >= self._timeout_s:
                self._on_stall(
                    f"no byte has moved for {self._timeout_s:g} s (SDE_STEP_TIMEOUT_S), and the "
                    "worker ends; its log has the position of each thread"
                )
                return
