"""Cancels jobs, and writes the outcome of a job that no worker holds. Both survive a restart."""

from __future__ import annotations

import logging
import sqlite3
import threading
from datetime import UTC, datetime

from gateway.errors import AlreadyEnded, StorageUnavailable
from gateway.jobs.broker import Broker
from gateway.jobs.job_entry import JobEntry, JobState, iso_time
from gateway.jobs.journal import Journal
from gateway.store.result_index import ResultIndex
from gpu_worker.contract.job import Outcome, result_record
from gpu_worker.store.result_log import ResultLog

log = logging.getLogger(__name__)

NEVER_RUN = "canceled before it ran"


class JobCancellation:
    """Ends jobs on request. Thread-safe.

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
        self._unindexed: list[str] = []

    def cancel(self, uuid: str) -> None:
        """End a job: a queued one now, a running one between two of its steps.

        Raises:
            UnknownJob: the job is not in the table.
            AlreadyEnded: the job has succeeded or failed.
            StorageUnavailable: the disk cannot store the cancellation; the job goes on.
        """
        state = self._broker.view(uuid).state
        if state is JobState.CANCELED:
            return
        if state.ended:
            raise AlreadyEnded(f"the job {uuid} has {state} already")
        try:
            self._journal.cancel(uuid)
        except OSError as error:
            raise StorageUnavailable.refusing("the cancellation", error) from error
        entry = self._broker.cancel(uuid)
        if entry.worker is None and not entry.state.ended:
            try:
                self.end_unrun(entry)
            except (OSError, sqlite3.Error) as error:
                # The cancellation is on disk, so the dispatcher that takes the job next ends it.
                log.error("the outcome of %s cannot be written yet: %s", uuid, error)
                self._broker.requeue(entry, cancel=True)

    def end_unrun(
        self, entry: JobEntry, outcome: Outcome = Outcome.CANCELED, reason: str = NEVER_RUN
    ) -> None:
        """Write the outcome of a job that no worker holds.

        Raises:
            OSError: the outcome cannot be written.
            sqlite3.Error: the index cannot say whether there is one. Nothing is written.
        """
        uuid = entry.job.uuid
        record = result_record(
            entry.job,
            outcome=outcome,
            errors=[reason],
            data=None,
            metadata={
                "image_index": 0,
                "num_images": 1,
                "attempt": 0,
                "step": 0,
                "steps": entry.job.request.steps,
                "ended_time": iso_time(datetime.now(UTC)),
            },
        )
        with self._lock:
            if entry.state.ended or self._index.has_outcome(uuid):
                return
            self._own_log.append(record)
            self._broker.end(uuid, record)
            self._unindexed.append(uuid)
            try:
                self._index_outcomes()
            except (OSError, sqlite3.Error) as error:
                log.error("the outcome of %s is written but not indexed yet: %s", uuid, error)

    def index_outcomes(self) -> None:
        """Index outcomes that were written while the index could not be.

        Raises:
            OSError, sqlite3.Error: the index cannot be written yet.
        """
        if self._unindexed:
            with self._lock:
                self._index_outcomes()

    def _index_outcomes(self) -> None:
        self._index.refresh(*self._own_log.position)
        for uuid in self._unindexed:
            self._journal.end(uuid)
        self._unindexed.clear()

    def rotate(self) -> None:
        """Start a new segment of the gateway's own log, so that the old one can be merged.

        Raises:
            OSError: the disk refuses it.
        """
        with self._lock:
            self._own_log.rotate()
