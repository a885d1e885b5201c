"""A short run of the kill harness; `make chaos` is the long one."""

from __future__ import annotations

import random
from pathlib import Path

from tests.support.chaos import chaos


def test_whatever_is_killed_nothing_is_lost_doubled_or_stuck(folder: Path) -> None:
    seed = random.randrange(10**6)
    report = chaos(folder, kills=30, supervised=6, seed=seed)
    assert report.sound, f"seed {seed}: {report}"
    assert report.deleted > 0
    assert report.accepted > 10 and sum(report.kills.values()) == 36
