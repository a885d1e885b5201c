"""Decides when a client polls a job again, and when it gives up. It only sleeps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

from sde_client.errors import GatewayUnreachable, WaitTimeout, WorkerUnavailable

SHORTEST_S, LONGEST_S = 0.02, 0.5
"""Bounds of the polling interval, in seconds."""

GROWTH = 1.5

HOLD_S = 5.0
"""For this many seconds the server may delay its reply until the job has changed."""

Reply = TypeVar("Reply")


class Poller:
    """The polling intervals, the deadline and the patience of one wait().

    Args:
        timeout_s: the limit of the whole wait in seconds; None sets no limit.
        patience_s: for how many seconds the gateway may be unreachable without a break.
    """

    def __init__(self, uuid: str, timeout_s: float | None, patience_s: float) -> None:
        self._uuid = uuid
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._started = self._request_time = time.monotonic()
        self._delay_s = SHORTEST_S
        self._hold_s = 0.0
        self._last: object = None

    def retry_while_away(self, send: Callable[[], Reply]) -> Reply:
        """Call `send()`, and call it again while the gateway is away.

        Raises:
            GatewayUnreachable, WorkerUnavailable: the patience has ended.
            WaitTimeout: the deadline has passed.
        """
        away_since: float | None = None
        while True:
            try:
                return send()
            except (GatewayUnreachable, WorkerUnavailable):
                now = time.monotonic()
                away_since = away_since or now
                if now - away_since >= self._patience_s:
                    raise
            self.pause()

    def hold_s(self) -> float:
        """Return for how long the server may delay its next reply. The first one is not delayed.

        Raises:
            WaitTimeout: the deadline has passed.
        """
        self._hold_s = 0.0 if self._last is None else min(HOLD_S, self._left_s())
        self._request_time = time.monotonic()
        return self._hold_s

    def after(self, current: object, eta_s: float | None) -> None:
        """Sleep after a reply, unless the server has delayed it.

        The server does not delay a reply if too many clients wait. Then pause() sets the interval.

        Args:
            current: what the reply says; the interval starts again when it has changed.
            eta_s: the estimated seconds until the job's end.

        Raises:
            WaitTimeout: the deadline has passed.
        """
        took_s = time.monotonic() - self._request_time
        changed, self._last = current != self._last, current
        if changed:
            self._delay_s = SHORTEST_S
            # The steps may be faster, but nobody reads them faster.
            time.sleep(max(0.0, SHORTEST_S - took_s))
        elif took_s < self._hold_s:
            self.pause(eta_s)

    def pause(self, eta_s: float | None = None) -> None:
        """Sleep for half of the estimated time, or for longer each time without an estimate.

        Raises:
            WaitTimeout: the deadline has passed.
        """
        time.sleep(min(self._next_s(eta_s), self._left_s()))

    def _next_s(self, eta_s: float | None) -> float:
        delay_s = self._delay_s * GROWTH
        if eta_s is not None and eta_s > 0:
            delay_s = eta_s / 2
        self._delay_s = min(max(delay_s, SHORTEST_S), LONGEST_S)
        return self._delay_s

    def _left_s(self) -> float:
        if self._timeout_s is None:
            return math.inf
        left_s = self._started + self._timeout_s - time.monotonic()
        if left_s <= 0:
            raise WaitTimeout(self._uuid, self._timeout_s)
        return left_s
