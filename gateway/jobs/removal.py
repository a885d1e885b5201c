"""The ways out before and after the end: cancel a job, delete a result. Both survive a restart."""

from __future__ import annotations

import logging
import sqlite3
import threading
from datetime import UTC, datetime

from gateway.errors import AlreadyEnded, NotEnded, StorageUnavailable, UnknownJob
from gateway.jobs.broker import Broker
from gateway.jobs.job_entry import JobEntry, JobState, iso_time
from gateway.jobs.journal import Journal
from gateway.store.index_db import Entry
from gateway.store.input_store import InputStore
from gateway.store.result_index import ResultIndex
from gpu_worker.contract.job import Outcome, result_record
from gpu_worker.store.result_log import ResultLog

log = logging.getLogger(__name__)

NEVER_RUN = "canceled before it ran"


class Removal:
    """Cancels and deletes. Thread-safe.

    Args:
        own_log: the gateway's own result log, for outcomes of jobs that no worker ran.

    `rewrite` names the segments that hold what was deleted, for the housekeeping.
    """

    def __init__(
        self,
        broker: Broker,
        journal: Journal,
        index: ResultIndex,
        own_log: ResultLog,
        inputs: InputStore,
    ) -> None:
        self._broker = broker
        self._journal = journal
        self._index = index
        self._own_log = own_log
        self._inputs = inputs
        self._lock = threading.Lock()
        self._deleting = threading.Lock()
        self.rewrite: set[str] = set()

    def cancel(self, uuid: str) -> None:
        """End a job: a queued one now, a running one between two of its steps.

        Raises:
            UnknownJob: there is no such job.
            AlreadyEnded: it has succeeded or failed.
            StorageUnavailable: the disk does not take it; the job goes on.
        """
        state = JobState(self._broker.view(uuid)["state"])
        if state is JobState.CANCELED:
            return
        if state.ended:
            raise AlreadyEnded(f"the job {uuid} has {state} already")
        try:
            self._journal.cancel(uuid)
        except OSError as error:
            raise StorageUnavailable.refusing("the cancellation", error) from error
        ticket = self._broker.cancel(uuid)
        if ticket.worker is None and not ticket.state.ended:
            try:
                self.end_unrun(ticket)
            except OSError as error:
                # The wish is on the disk: whoever takes the job next ends it instead.
                log.error("the outcome of %s cannot be written yet: %s", uuid, error)
                self._broker.requeue(ticket, cancel=True)

    def end_unrun(
        self, ticket: JobEntry, outcome: Outcome = Outcome.CANCELED, why: str = NEVER_RUN
    ) -> None:
        """Write the outcome of a job that no worker holds: a canceled one's. Raises OSError."""
        uuid = ticket.job.uuid
        record = result_record(
            ticket.job,
            outcome=outcome,
            errors=[why],
            data=None,
            facts={
                "image_index": 0,
                "num_images": 1,
                "attempt": 0,
                "step": 0,
                "steps": ticket.job.request.steps,
                "ended_time": iso_time(datetime.now(UTC)),
            },
        )
        with self._lock:
            if ticket.state.ended or self._index.find(uuid) is not None:
                return
            self._own_log.append(record)
            self._broker.end(uuid, record)
            try:
                self._index.refresh(*self._own_log.position)
            except (OSError, sqlite3.Error) as error:
                log.error("the outcome of %s is written but not indexed yet: %s", uuid, error)
            else:
                self._journal.end(uuid)

    def begin_segment(self) -> None:
        """Leave the gateway's own newest segment, so that it can be merged. Raises OSError."""
        with self._lock:
            self._own_log.begin_segment()

    def delete(self, *uuids: str, rewrite: bool = True) -> int:
        """Delete all results of these jobs; how many of the jobs had any. They are gone for readers
        when this returns, from the disk after the next consolidation; with `rewrite` that is soon.
        Of several that delete one at once, one finds it.

        Raises:
            NotEnded: one is a job without an outcome.
            StorageUnavailable: the disk does not take it; nothing is deleted.
        """
        with self._deleting:
            found = {uuid: self._index.find_all(uuid) for uuid in dict.fromkeys(uuids)}
            there = {uuid: entries for uuid, entries in found.items() if entries}
            if there:
                self._delete(there)
        if rewrite:
            self.rewrite.update(entry.segment for results in there.values() for entry in results)
        for uuid in there:
            self._inputs.remove(uuid)
        if not there:
            for uuid in uuids:
                self._not_pending(uuid)
        return len(there)

    def _delete(self, there: dict[str, list[Entry]]) -> None:
        try:
            self._journal.delete({uuid: results[0].submission for uuid, results in there.items()})
        except OSError as error:
            raise StorageUnavailable.refusing("the deletion", error) from error
        # Forgotten first: who finds no result of a job then does not find the job either, and
        # begins nothing anew.
        for uuid in there:
            self._broker.forget(uuid)
        self._index.delete(*there)

    def _not_pending(self, uuid: str) -> None:
        try:
            state = self._broker.view(uuid)["state"]
        except UnknownJob:
            return
        if not JobState(state).ended:
            raise NotEnded(f"the job {uuid} is {state}: cancel it, or wait for its end")
