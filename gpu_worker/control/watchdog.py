"""Ends a process that hangs in a step, with faulthandler's thread, which needs no GIL."""

from __future__ import annotations

import faulthandler

REARM_S = 1.0
"""Arming faulthandler costs ~1.7 ms, so the deadline moves at most once a second."""


class StepWatchdog:
    """The limit of `timeout_s` for each step. A process has one watchdog at a time."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._armed_at = 0.0

    def arm(self, now: float) -> None:
        """Start the limit now. It also ends a process that hangs in C code."""
        faulthandler.dump_traceback_later(self._timeout_s + REARM_S, exit=True)
        self._armed_at = now

    def move(self, now: float) -> None:
        """Restart the limit after a step."""
        if now - self._armed_at >= REARM_S:
            self.arm(now)

    def cancel(self) -> None:
        """Stop the limit, because no step is running."""
        faulthandler.cancel_dump_traceback_later()
