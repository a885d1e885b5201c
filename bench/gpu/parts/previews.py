"""How many previews a job has at 20, 50 and 500 ms a step, and what they cost.

A tiny model draws, and the card is kept busy until its step is as long as a real one's.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench.gpu import card
from bench.gpu.case import Measure, Part, expect, rounded
from bench.gpu.ledger import Line
from bench.gpu.session import BUILT_IN, Session
from bench.previews import Counted
from gpu_worker.output.preview_file import SHARE

STEP_MS = (20, 50, 500)
STEPS = {20: 50, 50: 30, 500: 8}
MODELS = {"built-in model": BUILT_IN, "SD 1.5": "sd15"}
"""The built-in model's previews go through its VAE, those of SD 1.5 through the published map."""

MAX_SLOWDOWN = 1.05


def part() -> Part:
    """Return a case for each model and length of a step."""
    cases: dict[str, Measure] = {
        f"{title}, {step_ms} ms": functools.partial(job, model=model, step_ms=step_ms)
        for title, model in MODELS.items()
        for step_ms in STEP_MS
    }
    return Part(cases, case_s=60)


def job(session: Session, line: Line, model: str, step_ms: int) -> None:
    """Run jobs of equal steps with and without previews, turn about."""
    bench = session.current(model)
    steps, folder = session.steps(STEPS[step_ms]), Path(tempfile.mkdtemp(prefix="sde-"))
    file = Counted(folder, "bench")
    seconds: dict[bool, list[float]] = {True: [], False: []}
    spin = bench.pipe.unet.register_forward_pre_hook(
        lambda *_: card.spin(0.002 if card.is_make_believe() else step_ms / 1e3)
    )
    try:
        bench.make(num_inference_steps=2)
        for with_previews in (True, False, True, False):
            start = time.perf_counter()
            bench.make(num_inference_steps=steps, on_step=_on_step(file if with_previews else None))
            torch.cuda.synchronize()
            seconds[with_previews].append(time.perf_counter() - start)
            file.remove()
    finally:
        spin.remove()
        shutil.rmtree(folder, ignore_errors=True)
    there, without = (min(seconds[kind]) for kind in (True, False))
    line.numbers = rounded(
        {
            "step_ms": step_ms,
            "whole_step_ms": without / steps * 1e3,
            "previews_a_job": file.made / len(seconds[True]),
            "host_ms_each": file.spent_s / max(1, file.made) * 1e3,
            "share_of_time": file.spent_s / sum(seconds[True]),
            "job_s": there,
            "job_s_without": without,
        }
    )
    if not card.is_make_believe():  # whose jobs are too short for a second preview
        expect(line, file.made > 0, "there is no preview")
        share = file.spent_s / sum(seconds[True])
        expect(line, share < 2 * SHARE, f"previews take {100 * share:.1f} % of the time")
        slower = there / without
        expect(line, slower < MAX_SLOWDOWN, f"a job with previews takes {slower:.2f} times as long")


def _on_step(file: Counted | None) -> Any:
    def on_step(step: int, steps: int, preview: Any = None) -> None:
        if file is not None and preview is not None:
            file.offer("a", preview)

    return on_step
