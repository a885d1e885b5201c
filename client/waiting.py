"""How long to wait between two looks at a job, and when to give up. Does no I/O but sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from client.errors import GatewayUnreachable, WaitTimeout, WorkerUnavailable

SHORTEST_S, LONGEST_S = 0.02, 0.5
"""Bounds of the polling interval, in seconds."""

GROWTH = 1.5

Answer = TypeVar("Answer")


class Watch:
    """The clock of one wait(): its pace, its deadline, its patience with a gateway that is away.

    Args:
        timeout_s: seconds for all of it; None for no limit.
        patience_s: seconds of unbroken unreachability that are borne.
    """

    def __init__(self, uuid: str, timeout_s: float | None, patience_s: float) -> None:
        self._uuid = uuid
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._started = time.monotonic()
        self._delay_s = SHORTEST_S

    def patiently(self, ask: Callable[[], Answer]) -> Answer:
        """`ask()`, again and again while the gateway is away.

        Raises:
            GatewayUnreachable: for longer than the patience lasts; WorkerUnavailable likewise.
            WaitTimeout: the deadline came first.
        """
        away_since: float | None = None
        while True:
            try:
                return ask()
            except (GatewayUnreachable, WorkerUnavailable):
                now = time.monotonic()
                away_since = away_since or now
                if now - away_since >= self._patience_s:
                    raise
            self.pause()

    def pause(self, eta_s: float | None = None) -> None:
        """Sleep until the next look: half of what is left, else longer each time.

        An estimate that is used up says nothing any more, so that the pace slows down again.

        Raises:
            WaitTimeout: the deadline has come.
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
            return LONGEST_S
        left_s = self._started + self._timeout_s - time.monotonic()
        if left_s <= 0:
            raise WaitTimeout(self._uuid, self._timeout_s)
        return left_s
