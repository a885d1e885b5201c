"""Keeps the store small in a thread: retention by age, count and size, and consolidation."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

import orjson

from gateway.errors import StorageUnavailable
from gateway.jobs.deletion import ResultDeletion
from gateway.store import consolidation
from gateway.store.index_db import Entry, IndexDb
from gateway.store.result_index import ResultIndex
from gpu_worker.store import segments
from gpu_worker.store.durable import DamagedLine
from gpu_worker.store.segments import Segment

log = logging.getLogger(__name__)

PERIOD_S = 60.0
SOON_S = 1.0
"""Seconds until the next round after a rotation: by then the old segment can be merged."""

_PAGE = 500


@dataclass(frozen=True)
class Retention:
    """What is kept; 0 is no limit. The results of a job are kept or deleted together.

    `days` and `size_bytes` bound age and size; `results` bounds the number of images.
    """

    days: float = 0
    results: int = 0
    size_bytes: int = 0

    @property
    def limits(self) -> bool:
        """Return whether anything is ever deleted."""
        return bool(self.days or self.results or self.size_bytes)


class Housekeeping:
    """Deletes what exceeds the retention, then merges segments.

    Args:
        rotate: asks the writer of a segment to begin a new one.
    """

    def __init__(
        self,
        index: ResultIndex,
        deletion: ResultDeletion,
        retention: Retention,
        segment_bytes: int,
        rotate: Callable[[str], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._index = index
        self._deletion = deletion
        self._retention = retention
        self._segment_bytes = segment_bytes
        self._rotate = rotate
        self._now = now
        self._rotated: set[str] = set()

    def start(self) -> None:
        """Run in a daemon thread."""
        threading.Thread(target=self.run, name="housekeeping", daemon=True).start()

    def run(self) -> None:
        """Run a round at the start, every PERIOD_S, and soon after a rotation."""
        while True:
            more = False
            try:
                more = self.run_once()
            except (OSError, sqlite3.Error, StorageUnavailable) as error:
                log.warning("housekeeping failed and will be tried again: %s", error)
            except Exception:
                log.exception("housekeeping failed and will be tried again")
            time.sleep(SOON_S if more else PERIOD_S)

    def run_once(self) -> bool:
        """Run one round; return whether another one would soon find more to do.

        Raises:
            OSError, sqlite3.Error, StorageUnavailable: the disk refuses a write; nothing is lost.
        """
        if self._retention.limits:
            expired = self._expired()
            for start in range(0, len(expired), _PAGE):  # so that clients can delete in between
                self._deletion.delete(*expired[start : start + _PAGE], rewrite=False)
        rewrite = frozenset(self._deletion.rewrite)
        for run in list(consolidation.runs(self._index, self._segment_bytes, rewrite)):
            self._merge(run)
        mostly_garbage = set(self._mostly_garbage())
        for name in mostly_garbage:
            self._rotate(name)
        more, self._rotated = bool(mostly_garbage - self._rotated), mostly_garbage
        return more

    def _merge(self, run: list[Segment]) -> None:
        try:
            consolidation.merge(self._index, run)
        except (OSError, sqlite3.Error) as error:
            log.warning("the segments from %s on could not be merged: %s", run[0].name, error)
        else:
            self._deletion.rewrite.difference_update(segment.name for segment in run)

    def _expired(self) -> list[str]:
        return list(dict.fromkeys((*self._too_many(), *self._too_old())))

    def _too_many(self) -> Iterator[str]:
        totals = self._index.query(IndexDb.totals)
        most = self._retention.results or totals.results
        largest = self._retention.size_bytes or totals.live_bytes
        if totals.results <= most and totals.live_bytes <= largest:
            return
        count, size = 0, 0
        for uuid, results in groupby(self._newest_first(), key=lambda entry: entry.uuid):
            lengths = [entry.length for entry in results]
            # The newest result decides: a new job is not deleted because it has many images.
            if count + 1 > most or size + lengths[0] > largest:
                yield uuid
            count, size = count + len(lengths), size + sum(lengths)

    def _too_old(self) -> Iterator[str]:
        if not self._retention.days:
            return
        oldest = self._now() - timedelta(days=self._retention.days)
        for entry in self._index.oldest_first():
            if self._created(entry) >= oldest:
                return
            yield entry.uuid

    def _newest_first(self) -> Iterator[Entry]:
        last: Entry | None = None
        while page := self._index.newest_first(_PAGE, last):
            yield from page
            last = page[-1]

    def _created(self, entry: Entry) -> datetime:
        try:
            text = self._index.read_without_data(entry)
            return datetime.fromisoformat(orjson.loads(text or b"{}")["created_time"])
        except (KeyError, ValueError, OSError, DamagedLine):
            return self._now()

    def _mostly_garbage(self) -> Iterator[str]:
        """Yield newest segments that need a rotation: most of their bytes are deleted."""
        live = self._index.query(IndexDb.live_bytes)
        closed = set(consolidation.closed_segments(self._index.directory))
        for segment in segments.live_segments(self._index.directory):
            size = (self._index.directory / segment.name).stat().st_size
            garbage = size - live.get(segment.name, 0)
            is_garbage = garbage > consolidation.GARBAGE_RATIO * size
            if segment not in closed and (is_garbage or segment.name in self._deletion.rewrite):
                yield segment.name
