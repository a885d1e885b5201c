"""Keeps the store small in a thread: retention by age, count and size, and consolidation."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice, pairwise

import orjson

from gateway.errors import StorageUnavailable
from gateway.jobs.deletion import ResultDeletion
from gateway.store import consolidation
from gateway.store.index_db import Entry, IndexDb
from gateway.store.result_index import ResultIndex
from gateway.store.retention_clock import RetentionClock
from gpu_worker.store import process, segments
from gpu_worker.store.durable import DamagedLine
from gpu_worker.store.segments import Segment

log = logging.getLogger(__name__)

ReadTime = Callable[[], datetime]

PERIOD_S = 60.0
SOON_S = 1.0
"""Seconds until the next round after a rotation: by then the old segment can be merged."""

_PAGE = 500

IMPLAUSIBLE_PAUSE = timedelta(days=365)
"""Two results in a row are seldom further apart."""

FUTURE = timedelta(days=1)
"""A result that is newer than now by more has the time of a clock that was wrong."""


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


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    """Log what the disk refuses in a step. Nothing is lost, and the next round tries it again."""
    try:
        yield
    except (OSError, sqlite3.Error, StorageUnavailable) as error:
        log.warning("%s failed and will be tried again: %s", name, error)
    except Exception:
        log.exception("%s failed and will be tried again", name)


class Housekeeping:
    """Deletes what exceeds the retention, then merges segments.

    Args:
        rotate: asks the writer of a segment to begin a new one.
        clock: the time by which results and the trash are too old; by default that of a file
            beside the index.
        empty_trash: deletes what has been in the trash for too long, by a clock.
    """

    def __init__(
        self,
        index: ResultIndex,
        deletion: ResultDeletion,
        retention: Retention,
        segment_bytes: int,
        rotate: Callable[[str], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: RetentionClock | None = None,
        empty_trash: Callable[[ReadTime], None] = lambda _: None,
    ) -> None:
        self._index = index
        self._deletion = deletion
        self._retention = retention
        self._segment_bytes = segment_bytes
        self._rotate = rotate
        path = index.directory / "retention_clock.json"
        self._clock = clock or RetentionClock(path, lambda: newest_time(index), now)
        self._empty_trash = empty_trash
        self._rotated: set[str] = set()

    def start(self) -> None:
        """Run in a daemon thread. The process ends with it."""
        process.start_thread("housekeeping", self.run)

    def run(self) -> None:
        """Run a round at the start, every PERIOD_S, and soon after a rotation."""
        while True:
            more = False
            try:
                more = self.run_once()
            except Exception:
                log.exception("housekeeping failed and will be tried again")
            time.sleep(SOON_S if more else PERIOD_S)

    def run_once(self) -> bool:
        """Run one round; return whether another one would soon find more to do.

        Each step is tried whatever became of those before it: on a full disk one of them may be
        refused, and another one makes room.
        """
        with _step("the emptying of the trash"):
            self._empty_trash(self._clock.read)
        if self._retention.limits:
            with _step("the deletion of old results"):
                self._delete(self._too_old())
            with _step("the deletion of surplus results"):
                self._delete(self._too_many())
        with _step("the merge of segments"):
            rewrite = frozenset(self._deletion.rewrite)
            for run in list(consolidation.runs(self._index, self._segment_bytes, rewrite)):
                self._merge(run)
        return self._rotate_garbage()

    def _delete(self, expired: Iterator[str]) -> None:
        uuids = list(dict.fromkeys(expired))
        for start in range(0, len(uuids), _PAGE):  # so that clients can delete in between
            self._deletion.delete(*uuids[start : start + _PAGE], rewrite=False)

    def _rotate_garbage(self) -> bool:
        """Rotate segments that are mostly garbage; return whether one of them is new."""
        mostly_garbage: set[str] = set()
        with _step("the search for deleted results"):
            mostly_garbage.update(self._mostly_garbage())
        for name in mostly_garbage:
            with _step(f"the rotation of {name}"):
                self._rotate(name)
        more, self._rotated = bool(mostly_garbage - self._rotated), mostly_garbage
        return more

    def _merge(self, run: list[Segment]) -> None:
        try:
            is_merged = consolidation.merge(self._index, run)
        except (OSError, sqlite3.Error) as error:
            log.warning("the segments from %s on could not be merged: %s", run[0].name, error)
            return
        if is_merged:
            self._deletion.rewrite.difference_update(segment.name for segment in run)

    def _too_many(self) -> Iterator[str]:
        totals = self._index.query(IndexDb.totals)
        most = self._retention.results or totals.results
        largest = self._retention.size_bytes or totals.live_bytes
        if totals.results <= most and totals.live_bytes <= largest:
            return
        count, size = 0, 0
        for uuid, results in groupby(_newest_first(self._index), key=lambda entry: entry.uuid):
            lengths = [entry.length for entry in results]
            # The newest result decides: a new job is not deleted because it has many images.
            if count + 1 > most or size + lengths[0] > largest:
                yield uuid
            count, size = count + len(lengths), size + sum(lengths)

    def _too_old(self) -> Iterator[str]:
        if not self._retention.days:
            return
        now = self._clock.read()
        oldest = now - timedelta(days=self._retention.days)
        latest: datetime | None = None
        for entry in self._index.oldest_first():
            created = _created(self._index, entry)
            if created is None or created > now + FUTURE:
                continue  # nobody knows how old it is
            # No result is older than those before it. The clock was behind when it was made.
            latest = created if latest is None else max(created, latest)
            if latest >= oldest:
                return
            yield entry.uuid

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


def newest_time(index: ResultIndex) -> datetime | None:
    """Return the time of the newest result, or None without one.

    A result that is years newer than the one before it was made while the clock was wrong.
    """
    newest = (_created(index, entry) for entry in islice(_newest_first(index), _PAGE))
    times = [created for created in newest if created is not None]
    for created, earlier in pairwise(times):
        if created - earlier < IMPLAUSIBLE_PAUSE:
            return created
    return times[-1] if times else None


def _newest_first(index: ResultIndex) -> Iterator[Entry]:
    last: Entry | None = None
    while page := index.newest_first(_PAGE, last):
        yield from page
        last = page[-1]


def _created(index: ResultIndex, entry: Entry) -> datetime | None:
    try:
        text = index.read_without_data(entry)
        created = datetime.fromisoformat(orjson.loads(text or b"{}")["created_time"])
    except (KeyError, TypeError, ValueError, OSError, DamagedLine):
        return None
    return created if created.tzinfo is not None else None
