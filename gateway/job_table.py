"""Every job the broker knows, and the line of those that wait. The broker holds the lock."""

from __future__ import annotations

import bisect
from collections import OrderedDict

from gateway.errors import UnknownJob
from gateway.ticket import JobState, Ticket

KEPT_ENDED = 10_000
"""Ended jobs that stay in the table; older ones are still answered from the result log."""


class JobTable:
    """Tickets by uuid; `waiting` is in the order of acceptance."""

    def __init__(self) -> None:
        self.waiting: list[Ticket] = []
        self._tickets: OrderedDict[str, Ticket] = OrderedDict()

    def add(self, ticket: Ticket) -> None:
        """A new one; a queued one stands in line."""
        self._tickets[ticket.job.uuid] = ticket
        if ticket.state is JobState.QUEUED:
            self.stand_in_line(ticket)

    def stand_in_line(self, ticket: Ticket) -> None:
        """Where its sequence number puts it."""
        bisect.insort(self.waiting, ticket, key=lambda t: t.job.sequence)

    def leave_line(self, ticket: Ticket) -> None:
        """No longer waiting, if it was."""
        if ticket in self.waiting:
            self.waiting.remove(ticket)

    def position(self, ticket: Ticket) -> int | None:
        """How many stand before it; None when it does not wait."""
        return self.waiting.index(ticket) if ticket in self.waiting else None

    def find(self, uuid: str) -> Ticket:
        """Raises UnknownJob."""
        ticket = self._tickets.get(uuid)
        if ticket is None:
            raise UnknownJob(uuid)
        return ticket

    def get(self, uuid: str | None) -> Ticket | None:
        """None when it is not there."""
        return self._tickets.get(uuid) if uuid else None

    def newest(self, limit: int) -> list[Ticket]:
        """By acceptance, newest first."""
        return sorted(self._tickets.values(), key=lambda t: -t.job.sequence)[:limit]

    def forget(self, uuid: str) -> None:
        """An ended one is no longer answered from here."""
        ticket = self._tickets.get(uuid)
        if ticket is not None and ticket.state.ended:
            self._tickets.pop(uuid)

    def forget_old(self) -> None:
        """Keep KEPT_ENDED at most."""
        while len(self._tickets) > KEPT_ENDED:
            oldest = next(iter(self._tickets.values()))
            if not oldest.state.ended:
                return
            self._tickets.popitem(last=False)
