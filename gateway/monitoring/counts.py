"""Counts jobs and HTTP answers since the start of the gateway, for its metrics. Thread-safe."""

from __future__ import annotations

import bisect
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

QUEUE_S = (0.05, 0.25, 1, 5, 15, 60, 300, 1800, 7200)
STEP_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60)
JOB_S = (0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 900, 3600)
"""The bounds of the buckets: a fast GPU makes a step in 10 ms, and a CPU takes 15 s for one."""

MAX_ROUTES = 500
"""Routes are templates, methods and statuses are few, so this is never reached."""


@dataclass
class Histogram:
    """How many observations are at most as large as each bound, and their sum."""

    bounds: Sequence[float]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        """Begin with empty buckets; the last one has no bound."""
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the pairs of a bound and the observations up to it."""
        pairs, below = [], 0
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            below += count
            pairs.append((bound, float(below)))
        return pairs


@dataclass
class Totals:
    """The counts of one moment."""

    accepted: Counter[str] = field(default_factory=Counter)
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    answers: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    queue: Histogram = field(default_factory=lambda: Histogram(QUEUE_S))
    step: Histogram = field(default_factory=lambda: Histogram(STEP_S))
    job: Histogram = field(default_factory=lambda: Histogram(JOB_S))

    def copy(self) -> Totals:
        """Return a copy that does not change."""
        histograms = [
            Histogram(each.bounds, list(each.counts), each.total)
            for each in (self.queue, self.step, self.job)
        ]
        counters = (self.accepted, self.ended, self.answers)
        return Totals(*(Counter(each) for each in counters), *histograms)  # type: ignore[arg-type]


class Counts:
    """Totals that threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = Totals()

    def snapshot(self) -> Totals:
        """Return the totals of now."""
        with self._lock:
            return self._totals.copy()

    def accepted(self, door: str | None) -> None:
        """Count an accepted job."""
        with self._lock:
            self._totals.accepted[door or "unknown"] += 1

    def waited(self, seconds: float) -> None:
        """Count a job that leaves the queue."""
        with self._lock:
            self._totals.queue.observe(seconds)

    def ended(
        self, door: str | None, outcome: str, seconds: float | None, step_s: float | None
    ) -> None:
        """Count an ended job; the seconds of its run and of a step are None if unknown."""
        with self._lock:
            self._totals.ended[door or "unknown", outcome] += 1
            if seconds is not None:
                self._totals.job.observe(seconds)
            if step_s is not None:
                self._totals.step.observe(step_s)

    def answered(self, route: str, method: str, status: int) -> None:
        """Count an HTTP answer."""
        key = (route, method, str(status))
        with self._lock:
            if key in self._totals.answers or len(self._totals.answers) < MAX_ROUTES:
                self._totals.answers[key] += 1
