"""Every feature at every MACHINE_SIZE for one kind of model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gpu_worker.pipeline.execution import offload
from gpu_worker.pipeline.execution.machine_size import SIZES
from tests.support.cuda.memory import DEVICES
from tests.support.cuda_matrix import models, requests, resting_state
from tests.support.cuda_matrix.cases import (
    GPU,
    Case,
    Pixels,
    Previews,
    case,
    check_other_device,
    difference,
    on_cpu,
    on_device,
    pixels,
    use_dtype,
)
from tests.support.pipeline_bench import Bench


def run(folder: Path, kind: str) -> None:
    """Print a line for each feature at each size, and one for what an unload leaves."""
    use_dtype(torch.float32)
    models.save(folder)
    reference = on_cpu(folder, kind)
    wanted = requests.by_feature(reference, kind)
    expected = {name: pixels(reference.make(**asked)) for name, asked in wanted.items()}
    del reference
    for size in SIZES:
        bench = on_device(folder, kind, size)
        bench.make()
        before = resting_state.read(bench.pipe, GPU)
        for name, asked in wanted.items():
            with case(f"{kind} {size} {name}") as this:
                _feature(this, bench, asked, expected[name], before)
        with case(f"{kind} {size} previews") as this:
            _previews(this, bench, expected["text"], before)
        with case(f"{kind} {size} unload") as this:
            recent = bench.ours._assets.recent._entries
            if "controlnets" not in recent or "ip_adapters" not in recent:
                this.problems.append(f"only {sorted(recent)} stay in RAM")
            bench.ours.unload()
            this.problems += [f"{kept} is still in RAM" for kept in recent]
            left = DEVICES[GPU].allocated_bytes
            this.problems += [f"{left} bytes are left"] if left else []


def _feature(
    this: Case, bench: Bench, asked: dict[str, Any], expected: Pixels, before: resting_state.State
) -> None:
    try:
        this.difference = difference(pixels(bench.make(**asked)), expected)
    finally:
        this.problems += resting_state.changes(before, resting_state.read(bench.pipe, GPU))
        check_other_device(this)


def _previews(this: Case, bench: Bench, expected: Pixels, before: resting_state.State) -> None:
    previews = Previews()
    this.difference = difference(pixels(bench.make(on_step=previews)), expected)
    this.problems += previews.errors[:1]
    makes_any = offload.current(bench.pipe) == "none"
    if bool(previews.images) != makes_any:
        this.problems.append(f"there are {len(previews.images)} previews")
    this.numbers = {"previews": len(previews.images)}
    this.problems += resting_state.changes(before, resting_state.read(bench.pipe, GPU))
