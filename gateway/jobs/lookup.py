"""Finds a job in the broker's table, in the result log, or among the deleted."""

from __future__ import annotations

import orjson

from gateway.errors import ResultDeleted, UnknownJob
from gateway.jobs.broker import Broker
from gateway.jobs.job_entry import JobView
from gateway.store.result_index import ResultIndex


class JobLookup:
    """Looks into the table first. Thread-safe."""

    def __init__(self, broker: Broker, index: ResultIndex) -> None:
        self._broker = broker
        self._index = index

    def view(self, uuid: str, wait_s: float = 0, last_view: JobView | None = None) -> JobView:
        """Return the view of a job: now, or when it differs from the last view.

        Args:
            wait_s: seconds to wait for a difference at most; an ended job is not waited for.
            last_view: the view that the caller has; None returns the view of now.

        Raises:
            UnknownJob: no such job was accepted.
            ResultDeleted: its result was deleted.
        """
        try:
            return self._broker.view(uuid, wait_s, last_view)
        except UnknownJob:
            line = self._index.read_without_data(uuid)
        if line is not None:
            return JobView.from_record(orjson.loads(line))
        if self._index.is_deleted(uuid):
            raise ResultDeleted(uuid)
        raise UnknownJob(uuid)
