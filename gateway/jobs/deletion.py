"""Deletes the results of jobs: for readers at once, from the disk at the next consolidation."""

from __future__ import annotations

import threading

from gateway.errors import NotEnded, StorageUnavailable, UnknownJob
from gateway.jobs.broker import Broker
from gateway.jobs.journal import Journal
from gateway.store.index_db import Entry
from gateway.store.input_store import InputStore
from gateway.store.result_index import ResultIndex


class ResultDeletion:
    """Deletes. Thread-safe.

    `rewrite` names the segments that hold what was deleted, for the housekeeping.
    """

    def __init__(
        self, broker: Broker, journal: Journal, index: ResultIndex, inputs: InputStore
    ) -> None:
        self._broker = broker
        self._journal = journal
        self._index = index
        self._inputs = inputs
        self._lock = threading.Lock()
        self.rewrite: set[str] = set()

    def delete(self, *uuids: str, rewrite: bool = True) -> int:
        """Delete all results of these jobs, and return how many of the jobs had any.

        Readers find none of them when this returns. They leave the disk at the next consolidation;
        with `rewrite` that is soon. Of several callers that delete one at once, one finds it.

        Raises:
            NotEnded: one is a job without an outcome.
            StorageUnavailable: the disk does not take it; nothing is deleted.
        """
        with self._lock:
            found = {uuid: self._index.find_all(uuid) for uuid in dict.fromkeys(uuids)}
            existing = {uuid: entries for uuid, entries in found.items() if entries}
            if existing:
                self._delete(existing)
        if rewrite:
            self.rewrite.update(each.segment for entries in existing.values() for each in entries)
        for uuid in existing:
            self._inputs.remove(uuid)
        if not existing:
            for uuid in uuids:
                self._check_not_pending(uuid)
        return len(existing)

    def _delete(self, existing: dict[str, list[Entry]]) -> None:
        submissions = {uuid: entries[0].submission for uuid, entries in existing.items()}
        try:
            self._journal.delete(submissions)
        except OSError as error:
            raise StorageUnavailable.refusing("the deletion", error) from error
        # Forgotten first: who finds no result of a job then does not find the job either, and
        # begins nothing anew.
        for uuid in existing:
            self._broker.forget(uuid)
        self._index.delete(*existing)

    def _check_not_pending(self, uuid: str) -> None:
        try:
            state = self._broker.view(uuid).state
        except UnknownJob:
            return
        if not state.ended:
            raise NotEnded(f"the job {uuid} is {state}: cancel it, or wait for its end")
