"""A short run of the soak; `make soak` is the long one."""

from __future__ import annotations

import random
from pathlib import Path

from tests.support.soak import soak


def test_a_mixed_load_with_trouble_loses_nothing(folder: Path) -> None:
    seed = random.randrange(10**6)
    result = soak(folder, 20, seed)
    print(*result.lines(), sep="\n")
    assert result.sound, f"seed {seed}"
    assert result.report.accepted > 3 and result.tally.answers[422] > 0
