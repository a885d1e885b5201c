"""Says how old results and the trash are, because the computer's clock may be wrong by years.

Deletion is for good, and a computer with an empty battery starts in another decade. So this time
never jumps. It goes on while the service runs, and it is stored from run to run.

    {"v":1,"time":"2026-01-01T00:00:00+00:00","crc32":"89abcdef"}\\n
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from gpu_worker.store import durable
from gpu_worker.store.durable import DamagedLine, StoreTooNew

log = logging.getLogger(__name__)

VERSION = 1

PLAUSIBLE_GAP = timedelta(days=7)
"""The service may have been off for so long. A longer step of the clock is not believed."""

FIRST_GAP = timedelta(days=365)
"""The same for the first start with this file, when only the newest result shows the time."""

CATCH_UP = 2.0
"""How many times as fast this time runs while it is behind the clock. So a service that was off for
a month catches up in a month, and a clock that is 10 years ahead deletes nothing at once."""

SAVE_AFTER = timedelta(hours=1)

BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that nobody can set. On Linux it counts the time of sleep, too."""


class RetentionClock:
    """The time of one store. Thread-safe.

    Args:
        newest: returns the time of the newest result, or None without one. It is the first time of
            a store without a file.
        now: the clock of the computer.
        elapsed_s: a clock that nobody can set, in seconds.
    """

    def __init__(
        self,
        path: Path,
        newest: Callable[[], datetime | None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        elapsed_s: Callable[[], float] = lambda: time.clock_gettime(BOOT_CLOCK),
    ) -> None:
        self._path = path
        self._newest = newest
        self._now, self._elapsed_s = now, elapsed_s
        self._time: datetime | None = None
        self._saved: datetime | None = None
        self._last_elapsed_s = elapsed_s()
        self._is_behind = False
        self._lock = threading.Lock()
        self._is_unsaved = False

    def read(self) -> datetime:
        """Return the time, which is never later than the clock's.

        Raises:
            StoreTooNew: the file is of a newer version.
            OSError: the file cannot be read.
        """
        with self._lock:
            clock = self._now()
            moment = self._at(clock)
            if self._saved is None or moment - self._saved >= SAVE_AFTER:
                self._save(moment)
            return min(moment, clock)

    def stamp(self) -> datetime:
        """Return the time of what happens now: the clock's, but not before what the store has seen.

        By a clock that was behind, what happens now would be very old as soon as it is corrected.

        Raises:
            StoreTooNew: the file is of a newer version.
            OSError: the file cannot be read.
        """
        with self._lock:
            clock = self._now()
            return max(self._at(clock), clock)

    def _at(self, clock: datetime) -> datetime:
        """Return the time of the store. Raises StoreTooNew, OSError."""
        elapsed_s = self._elapsed_s()
        passed = timedelta(seconds=max(0.0, elapsed_s - self._last_elapsed_s))
        self._last_elapsed_s = elapsed_s
        gap = PLAUSIBLE_GAP
        if self._time is None:
            self._time = self._saved = self._stored()
            if self._time is None:
                self._time, gap = self._newest() or clock, FIRST_GAP
        self._time = self._advanced(self._time, passed, clock, gap)
        return self._time

    def _advanced(
        self, last: datetime, passed: timedelta, clock: datetime, plausible: timedelta
    ) -> datetime:
        """Return the time now, `passed` after the last one. It never goes back."""
        gap = clock - last - passed
        if gap <= plausible:
            if self._is_behind:
                log.info("the age of results is measured by the clock again")
            self._is_behind = False
            return max(last, clock)
        if not self._is_behind:
            log.warning(
                "the clock says %s, which is %d days after what this store has seen: until the "
                "service has run for that long, SDE_KEEP_DAYS and SDE_TRASH_DAYS count from %s and "
                "go on slowly",
                f"{clock:%Y-%m-%d}",
                gap.days,
                f"{last:%Y-%m-%d}",
            )
        self._is_behind = True
        return last + passed * CATCH_UP

    def _stored(self) -> datetime | None:
        try:
            line = durable.read_plain(self._path)
            durable.verify_checksum(line)
            content = orjson.loads(line)
            if content["v"] > VERSION:
                reason = f"has the version {content['v']}, and this version reads {VERSION}"
                raise StoreTooNew(self._path, reason)
            stored = datetime.fromisoformat(content["time"])
        except FileNotFoundError:
            return None
        except (DamagedLine, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be used and begins anew: %s", self._path.name, error)
            return None
        return stored if stored.tzinfo is not None else None

    def _save(self, moment: datetime) -> None:
        """Store the time. A full disk is no reason to keep what would make room: it is logged."""
        body = orjson.dumps({"v": VERSION, "time": moment.isoformat(timespec="seconds")})[:-1]
        try:
            durable.replace(self._path, durable.with_checksum(body))
        except OSError as error:
            if not self._is_unsaved:
                log.warning("%s cannot be written yet: %s", self._path.name, error)
            self._is_unsaved = True
            return
        self._saved, self._is_unsaved = moment, False
