"""Decides which connection is closed when a new one exceeds a limit.

It is the one that has kept a place for nothing longest. It closes nothing itself.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence

from gateway.http.server.channel import Channel
from gateway.http.server.limits import HttpLimits

GRACE_S = 0.05
"""The time that the first bytes of a connection have to come."""

YOUNG_S = 1.0
LEAST_BYTES, LEAST_RATE = 4096, 1024.0
"""The bytes, and the bytes a second, below which an incomplete request counts as idle."""

SENDING_S = 1.0
"""The time that each reader of a response has, however many others there are."""

_SENDS_ON = (3, 0.0)
"""The rank of a connection whose request is making progress."""


class ConnectionTable:
    """The open connections at one moment, and those that may be closed.

    Args:
        connections: those of the whole process.
    """

    def __init__(self, connections: Sequence[Channel], limits: HttpLimits) -> None:
        self._limits = limits
        self._now = time.monotonic()
        self._count = len(connections)
        self._waiting = Counter[str]()
        self._idle: dict[str, list[Channel]] = {}
        self._sending: list[Channel] = []
        for each in connections:
            if each.is_waiting:
                self._waiting[each.network] += 1
                if each.request_since or self._now - each.waiting_since > GRACE_S:
                    self._idle.setdefault(each.network, []).append(each)
            elif each.is_detached:
                self._sending.append(each)  # a page of events, which reconnects
            elif each.total_outbufs_len and self._now - each.sending_since > SENDING_S:
                self._sending.append(each)
        for network, idle in self._idle.items():
            idle.sort(key=self._rank, reverse=True)
            # A client that sends on is closed only where all others do so, too.
            slow = [each for each in idle if self._rank(each) < _SENDS_ON]
            all_send_on = not slow and len(idle) == self._waiting[network]
            self._idle[network] = idle if all_send_on else slow
        self._sending.sort(key=lambda each: each.sending_since, reverse=True)

    @property
    def is_full(self) -> bool:
        """Return whether a new connection has no place, and none can be closed for it."""
        is_at_limit = self._count >= self._limits.max_connections
        return is_at_limit and not any(self._idle.values()) and not self._sending

    def add(self, network: str) -> None:
        """Count a new connection from this network."""
        self._count += 1
        self._waiting[network] += 1

    def superfluous(self, network: str) -> Iterator[Channel]:
        """Take the connections that are closed before one of this network is added."""
        idle = self._idle.get(network)
        while idle and self._waiting[network] >= self._limits.max_waiting_per_address:
            yield self._take(network)
        while self._count >= self._limits.max_connections and (chosen := self.any_idle()):
            yield chosen

    def any_idle(self) -> Channel | None:
        """Take a connection of the network that has most idle ones, else the longest reader."""
        largest = max(self._idle, key=lambda each: len(self._idle[each]), default="")
        if self._idle.get(largest):
            return self._take(largest)
        self._count -= bool(self._sending)
        return self._sending.pop() if self._sending else None

    def _take(self, network: str) -> Channel:
        self._count -= 1
        self._waiting[network] -= 1
        return self._idle[network].pop()

    def _rank(self, each: Channel) -> tuple[int, float]:
        """Return a key by which the connection to close comes first."""
        since = each.request_since or each.waiting_since
        age = self._now - since
        if each.draining_since is not None:
            return 0, since
        if each.request_bytes >= max(LEAST_BYTES, LEAST_RATE * age):
            return _SENDS_ON[0], since
        return (1 if age > YOUNG_S else 2), since
