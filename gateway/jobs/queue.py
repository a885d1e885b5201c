"""Every job the broker knows, and the line of those that wait. The broker holds the lock."""

from __future__ import annotations

import bisect
from collections import OrderedDict

from gateway.errors import UnknownJob
from gateway.jobs.job_entry import JobEntry, JobState

KEPT_ENDED = 10_000
"""Ended jobs that stay in the table; older ones are still answered from the result log."""


NOT_WAITING: tuple[None, None] = (None, None)
"""The place of a job that does not wait."""


class JobQueue:
    """Tickets by uuid; `waiting` is in the order of acceptance, `running` by worker."""

    def __init__(self) -> None:
        self.waiting: list[JobEntry] = []
        self.running: dict[str, JobEntry] = {}
        self._tickets: OrderedDict[str, JobEntry] = OrderedDict()

    def add(self, ticket: JobEntry) -> None:
        """A new one; a queued one stands in line."""
        self._tickets[ticket.job.uuid] = ticket
        if ticket.state is JobState.QUEUED:
            self.stand_in_line(ticket)

    def stand_in_line(self, ticket: JobEntry) -> None:
        """Where its sequence number puts it."""
        bisect.insort(self.waiting, ticket, key=lambda t: t.job.sequence)

    def leave_line(self, ticket: JobEntry) -> None:
        """No longer waiting, if it was."""
        position = self._position(ticket)
        if position is not None:
            del self.waiting[position]

    def leave(self, ticket: JobEntry) -> None:
        """Neither waiting nor anybody's to finish any more."""
        self.leave_line(ticket)
        if ticket.worker is not None and self.running.get(ticket.worker) is ticket:
            self.running.pop(ticket.worker)

    def place(self, ticket: JobEntry) -> tuple[int | None, int | None]:
        """How many stand before it, and how many steps those want; None when it does not wait."""
        position = self._position(ticket)
        if position is None:
            return NOT_WAITING
        return position, sum(t.job.request.steps for t in self.waiting[:position])

    def line(self) -> dict[str, tuple[int, int]]:
        """place() of all that wait, by uuid."""
        places: dict[str, tuple[int, int]] = {}
        steps = 0
        for position, ticket in enumerate(self.waiting):
            places[ticket.job.uuid] = (position, steps)
            steps += ticket.job.request.steps
        return places

    def _position(self, ticket: JobEntry) -> int | None:
        sequence = ticket.job.sequence
        at = bisect.bisect_left(self.waiting, sequence, key=lambda t: t.job.sequence)
        return at if at < len(self.waiting) and self.waiting[at] is ticket else None

    def find(self, uuid: str) -> JobEntry:
        """Raises UnknownJob."""
        ticket = self._tickets.get(uuid)
        if ticket is None:
            raise UnknownJob(uuid)
        return ticket

    def get(self, uuid: str | None) -> JobEntry | None:
        """None when it is not there."""
        return self._tickets.get(uuid) if uuid else None

    def newest(self, limit: int) -> list[JobEntry]:
        """By acceptance, newest first."""
        return sorted(self._tickets.values(), key=lambda t: -t.job.sequence)[:limit]

    def forget(self, uuid: str) -> None:
        """It is no longer answered from here."""
        ticket = self._tickets.pop(uuid, None)
        if ticket is not None:
            self.leave(ticket)

    def forget_old(self) -> None:
        """Keep KEPT_ENDED at most."""
        if len(self._tickets) > KEPT_ENDED:
            oldest = next((t for t in self._tickets.values() if t.state.ended), None)
            if oldest is not None:
                self._tickets.pop(oldest.job.uuid)
