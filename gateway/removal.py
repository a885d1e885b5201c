"""The ways out before and after the end: cancel a job, delete a result. Both survive a restart."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

from gateway.broker import Broker
from gateway.errors import AlreadyEnded, NotEnded, StorageUnavailable, UnknownJob
from gateway.journal import Journal
from gateway.ticket import JobState, Ticket, iso_time
from gpu_worker.generation import Outcome, result_record
from gpu_worker.results import ResultIndex, ResultLog

NEVER_RUN = "canceled before it ran"


class Removal:
    """Cancels and deletes. Thread-safe.

    Args:
        own_log: the gateway's own result log, for outcomes of jobs that no worker ran.
    """

    def __init__(
        self, broker: Broker, journal: Journal, index: ResultIndex, own_log: ResultLog
    ) -> None:
        self._broker = broker
        self._journal = journal
        self._index = index
        self._own_log = own_log
        self._lock = threading.Lock()

    def cancel(self, uuid: str) -> None:
        """End a job: a queued one now, a running one between two of its steps.

        Raises:
            UnknownJob: there is no such job.
            AlreadyEnded: it has succeeded or failed.
            StorageUnavailable: the disk does not take it; the job goes on.
        """
        ticket = self._broker.cancel(uuid)
        if ticket.state.ended:
            if ticket.state is not JobState.CANCELED:
                raise AlreadyEnded(f"the job {uuid} has {ticket.state} already")
            return
        try:
            self._journal.cancel(uuid)
            if ticket.worker is None:
                self.end_unrun(ticket)
        except OSError as error:
            if ticket.worker is None:
                self._broker.requeue(ticket, cancel=False)
            raise StorageUnavailable(
                f"the disk does not take the cancellation: {error.strerror or error}"
            ) from error

    def end_unrun(self, ticket: Ticket) -> None:
        """Write the outcome of a canceled job that no worker holds. Raises OSError."""
        record = result_record(
            ticket.job,
            outcome=Outcome.CANCELED,
            errors=[NEVER_RUN],
            data=None,
            facts={"attempt": 0, "ended_time": iso_time(datetime.now(UTC))},
        )
        with self._lock:
            if self._index.find(ticket.job.uuid) is None:
                self._own_log.append(record)
            name, committed = self._own_log.position
        self._index.refresh(name, committed)
        self._journal.end(ticket.job.uuid)
        self._broker.end(ticket.job.uuid, JobState.CANCELED, [NEVER_RUN])

    def begin_segment(self) -> None:
        """Leave the gateway's own newest segment, so that it can be merged. Raises OSError."""
        with self._lock:
            self._own_log.begin_segment()

    def delete(self, *uuids: str) -> int:
        """Delete results; how many were there. They are gone for readers when this returns, and
        from the disk after the next consolidation.

        Raises:
            NotEnded: one is a job without an outcome.
            StorageUnavailable: the disk does not take it; nothing is deleted.
        """
        there = [uuid for uuid in uuids if self._index.find(uuid) is not None]
        if not there:
            for uuid in uuids:
                self._not_pending(uuid)
            return 0
        try:
            self._journal.delete(*there)
        except OSError as error:
            raise StorageUnavailable(
                f"the disk does not take the deletion: {error.strerror or error}"
            ) from error
        for uuid in there:
            self._index.delete(uuid)
            self._broker.forget(uuid)
        return len(there)

    def _not_pending(self, uuid: str) -> None:
        try:
            state = self._broker.view(uuid)["state"]
        except UnknownJob:
            return
        if not JobState(state).ended:
            raise NotEnded(f"the job {uuid} is {state}: cancel it, or wait for its end")
