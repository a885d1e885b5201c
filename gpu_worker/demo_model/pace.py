"""How long a training stage lasts and how fast it learns at which moment. Trains nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch
from tqdm import tqdm


class Clock:
    """A stage's time budget: yields its spent fraction, keeps elapsed seconds over resumes."""

    def __init__(self, minutes: float, elapsed: float = 0.0) -> None:
        self.budget, self.elapsed = minutes * 60, elapsed

    def fractions(self, name: str) -> Iterator[float]:
        """One value in 0..1 for each training step until the budget is spent."""
        with tqdm(
            total=round(self.budget), initial=round(self.elapsed), desc=name, unit="s"
        ) as bar:
            last = time.monotonic()
            while self.elapsed < self.budget:
                yield self.elapsed / self.budget
                now = time.monotonic()
                self.elapsed, last = self.elapsed + now - last, now
                bar.update(round(self.elapsed) - bar.n)


def learning_rate(peak: float, fraction: float) -> float:
    """Warm-up over the first 3 % of the time, then a cosine down to a fiftieth of the peak."""
    cosine = 0.02 + 0.49 * (1 + math.cos(math.pi * fraction))
    return peak * min(fraction / 0.03 + 0.02, cosine)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
