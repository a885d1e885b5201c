"""Deletes the results of jobs: for readers at once, from the disk at the next consolidation."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gateway.errors import NotEnded, StorageUnavailable, UnknownJob
from gateway.jobs.broker import Broker
from gateway.jobs.journal import Journal
from gateway.store.gallery.image_name import ImageName
from gateway.store.index_db import Entry
from gateway.store.input_store import InputStore
from gateway.store.result_index import ResultIndex


class ResultDeletion:
    """Deletes results. Thread-safe.

    Args:
        forget: is called with the images that were deleted.

    `rewrite` names the segments that hold what was deleted, for the housekeeping.
    """

    def __init__(
        self,
        broker: Broker,
        journal: Journal,
        index: ResultIndex,
        inputs: InputStore,
        forget: Callable[[set[ImageName]], None] = lambda _: None,
    ) -> None:
        self._broker = broker
        self._journal = journal
        self._index = index
        self._inputs = inputs
        self._forget = forget
        self._lock = threading.Lock()
        self.rewrite: set[str] = set()

    def delete(self, *uuids: str, rewrite: bool = True) -> int:
        """Delete all results of these jobs and return how many of the jobs had any.

        No reader finds them when this returns. Their bytes leave the disk at the next
        consolidation, which `rewrite` makes due. Of concurrent callers one deletes.

        Raises:
            NotEnded: one of the jobs has no outcome.
            StorageUnavailable: the disk cannot store the deletion; nothing is deleted.
        """
        with self._lock:
            entries_of = {uuid: self._index.find_records(uuid) for uuid in dict.fromkeys(uuids)}
            existing = {uuid: entries for uuid, entries in entries_of.items() if entries}
            if existing:
                self._delete(existing)
        if rewrite:
            self.rewrite.update(each.segment for entries in existing.values() for each in entries)
        for uuid in existing:
            self._inputs.remove(uuid)
        if existing:
            self._forget(
                {ImageName(uuid, each.image_index) for uuid in existing for each in existing[uuid]}
            )
        if not existing:
            for uuid in uuids:
                self.check_ended(uuid)
        return len(existing)

    def _delete(self, existing: dict[str, list[Entry]]) -> None:
        submissions = {uuid: entries[0].submission for uuid, entries in existing.items()}
        try:
            self._journal.delete(submissions)
        except OSError as error:
            raise StorageUnavailable.refusing("the deletion", error) from error
        # The job goes first: a thread that finds no result must not find the job and run it again.
        for uuid in existing:
            self._broker.forget(uuid)
        self._index.delete(*existing)

    def check_ended(self, uuid: str) -> None:
        """Raises NotEnded if the job is queued or running."""
        try:
            state = self._broker.view(uuid).state
        except UnknownJob:
            return
        if not state.ended:
            raise NotEnded(f"the job {uuid} is {state}: cancel it, or wait for its end")
