"""Where the host waits for the card: in a step of each scheduler, and once in a job.

The counts of two jobs of different length are subtracted, which leaves those of a step.
"""

from __future__ import annotations

import functools
from collections import Counter

from bench.gpu import card
from bench.gpu.case import Measure, Part, expect, rounded
from bench.gpu.ledger import Line
from bench.gpu.session import Session
from tests.support.builders import tiny_models
from tests.support.cuda_matrix.steps import SCHEDULERS

FEW, MANY = 10, 20
FEW_TINY, MANY_TINY = 4, 8
"""Steps of the two jobs, and those without a card. PNDM cannot do with fewer."""

MODEL = "sd"

AWAITED = {
    "DDIMScheduler": 6,
    "DDPMScheduler": 13,
    "LCMScheduler": 3,
    "PNDMScheduler": 3,
    "TCDScheduler": 4,
}
"""Waits in a step that the make-believe card counts, all in diffusers; the others have none.

A real card also waits for copies from memory that is not pinned.
"""

MAX_PLACES = 5
OURS = "gpu_worker/"


def part() -> Part:
    """Return a case for each scheduler."""
    cases: dict[str, Measure] = {
        name: functools.partial(of_scheduler, scheduler=name) for name in SCHEDULERS
    }
    return Part(cases, case_s=60)


def of_scheduler(session: Session, line: Line, scheduler: str) -> None:
    """Count the waits in a step and once in a job, and name where they are."""
    folder = session.work / "syncs"
    if not (folder / "models" / MODEL).exists():
        tiny_models.build().save_pretrained(folder / "models" / MODEL)
    bench = session.bench(folder, MODEL, MACHINE_SIZE="big", SDE_DTYPE="float32")
    few_steps, many_steps = (FEW_TINY, MANY_TINY) if card.is_make_believe() else (FEW, MANY)
    counts: dict[int, Counter[str]] = {}
    bench.make(scheduler=scheduler, num_inference_steps=few_steps)
    for steps in (few_steps, many_steps):
        with card.waits() as places:
            bench.make(scheduler=scheduler, num_inference_steps=steps)
        counts[steps] = Counter(places)
    of_steps = counts[many_steps] - counts[few_steps]
    a_step = (counts[many_steps].total() - counts[few_steps].total()) / (many_steps - few_steps)
    once = counts[few_steps].total() - a_step * few_steps
    own = sum(count for at, count in of_steps.items() if at.startswith(OURS))
    line.numbers = rounded({"a_step": a_step, "once_a_job": once}) | {
        "make_believe": AWAITED.get(scheduler, 0),
        "ours": own,
        "places": [f"{at} x{count}" for at, count in of_steps.most_common(MAX_PLACES)],
    }
    expect(line, own == 0, f"our own code waits {own} times in {many_steps - few_steps} steps")
