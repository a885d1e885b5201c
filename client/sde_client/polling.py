"""How long to wait between two looks at a job, and when to give up. Does no I/O but sleeping."""

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
"""For so long the server may hold its answer back until the job has changed."""

Answer = TypeVar("Answer")


class Poller:
    """The clock of one wait(): its pace, its deadline, its patience with a gateway that is away.

    Args:
        timeout_s: seconds for all of it; None for no limit.
        patience_s: seconds of unbroken unreachability that are borne.
    """

    def __init__(self, uuid: str, timeout_s: float | None, patience_s: float) -> None:
        self._uuid = uuid
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._started = self._asked = time.monotonic()
        self._delay_s = SHORTEST_S
        self._hold_s = 0.0
        self._seen: object = None

    def retry_while_away(self, ask: Callable[[], Answer]) -> Answer:
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

    def hold_s(self) -> float:
        """For how long the server may hold back its answer to this look: the first not at all.

        Raises:
            WaitTimeout: the deadline has come.
        """
        self._hold_s = 0.0 if self._seen is None else min(HOLD_S, self._left_s())
        self._asked = time.monotonic()
        return self._hold_s

    def after(self, seen: object, eta_s: float | None) -> None:
        """Sleep after a look that saw this, unless the server has done the waiting.

        It answers at once when too many wait already: then the pace is as pause() says.

        Raises:
            WaitTimeout: the deadline has come.
        """
        took_s = time.monotonic() - self._asked
        changed, self._seen = seen != self._seen, seen
        if changed:
            self._delay_s = SHORTEST_S
            # However fast the steps are, nobody reads them faster than this.
            time.sleep(max(0.0, SHORTEST_S - took_s))
        elif took_s < self._hold_s:
            self.pause(eta_s)

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
            return math.inf
        left_s = self._started + self._timeout_s - time.monotonic()
        if left_s <= 0:
            raise WaitTimeout(self._uuid, self._timeout_s)
        return left_s
