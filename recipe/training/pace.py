"""How long a stage lasts, how fast it learns at which moment, and its checkpoint on disk."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from recipe.training.replicas import Replica


class Clock:
    """A stage's time budget: yields its spent fraction, keeps elapsed seconds over resumes."""

    def __init__(self, minutes: float, elapsed: float = 0.0) -> None:
        self.budget, self.elapsed = minutes * 60, elapsed

    def fractions(self) -> Iterator[float]:
        """One value in 0..1 for each training step until the budget is spent."""
        last = time.monotonic()
        while self.elapsed < self.budget:
            yield self.elapsed / self.budget
            now = time.monotonic()
            self.elapsed, last = self.elapsed + now - last, now


def shared_fractions(replica: Replica, clock: Clock) -> Iterator[float]:
    """The first replica's fractions, in all replicas; ends in all of them at the same step."""
    own = clock.fractions()
    progress = replica.shared.progress
    while True:
        if replica.first:
            progress[2] = next(own, 1.0)
            progress[1] = clock.elapsed
        replica.wait()
        fraction = float(progress[2])
        if fraction >= 1.0:
            return
        yield fraction


class Interval:
    """Says when the next seconds have passed."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._last = seconds, time.monotonic()

    def due(self) -> bool:
        """True once each interval."""
        if time.monotonic() - self._last < self._seconds:
            return False
        self._last = time.monotonic()
        return True


def learning_rate(peak: float, fraction: float, floor: float = 0.02) -> float:
    """Warm-up over the first 2 % of the time, level for half, then a straight line down."""
    falling = 1 - (1 - floor) * max(0.0, (fraction - 0.5) / 0.5)
    return peak * min(fraction / 0.02 + 0.02, falling)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint whole: whoever reads the path sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
