"""Every family at every MACHINE_SIZE: one job of its first mode, and what it leaves."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch

from gpu_worker.pipeline.execution.machine_size import Size
from gpu_worker.pipeline.families import call_parameters
from tests.support.builders import tiny_adapters
from tests.support.builders.tiny_families import FAMILIES, Family
from tests.support.cuda.memory import DEVICES
from tests.support.cuda_matrix import resting_state
from tests.support.cuda_matrix.cases import (
    GPU,
    Case,
    Pixels,
    case,
    check_other_device,
    difference,
    on_cpu,
    on_device,
    pixels,
    use_dtype,
)
from tests.support.cuda_matrix.reports import MAX_DIFFERENCE
from tests.support.pipeline_bench import Bench

OFFLOADS: tuple[Size, ...] = ("big", "little", "tiny")
"""The sizes that differ at these images' sides: medium has the offload of big, and larger tiles."""


def run(folder: Path) -> None:
    """Print a line for each family at each size."""
    use_dtype(torch.float32)
    for name, family in FAMILIES.items():
        family.build().save_pretrained(folder / "models" / name)
        expected = _draw(on_cpu(folder, name), family)
        for size in OFFLOADS:
            before = DEVICES[GPU].allocated_bytes
            with case(f"{name} {size}") as this:
                _family(this, on_device(folder, name, size), family, expected)
                if this.difference > MAX_DIFFERENCE:
                    # A VAE that decodes in tiles does so on the CPU too.
                    tiled = _draw(on_cpu(folder, name, size), family)
                    _family(this, on_device(folder, name, size), family, tiled)
                left = DEVICES[GPU].allocated_bytes - before
                this.problems += [f"{left} bytes are left after the unload"] if left else []
            gc.collect()


def request(bench: Bench, family: Family) -> dict[str, Any]:
    """Return a small job of the first mode that the family has."""
    known = call_parameters(bench.pipe)
    asked: dict[str, Any] = {name: family.side for name in ("width", "height") if name in known}
    if not family.text:
        asked["image"] = bench.put(tiny_adapters.drawing(family.side, family.side))
        asked["mask_image"] = bench.put(tiny_adapters.mask(family.side, family.side))
    return asked


def _draw(bench: Bench, family: Family) -> Pixels:
    return pixels(bench.make(**request(bench, family)))


def _family(this: Case, bench: Bench, family: Family, expected: Pixels) -> None:
    before = resting_state.read(bench.pipe, GPU)
    try:
        this.difference = difference(_draw(bench, family), expected)
        after = resting_state.read(bench.pipe, GPU)
        if resting_state.changes(before, after):
            # Some families keep a table of positions on the device, from their first job on.
            before["bytes"] = after["bytes"]
            _draw(bench, family)
            after = resting_state.read(bench.pipe, GPU)
        this.problems += resting_state.changes(before, after)
        check_other_device(this)
    finally:
        bench.ours.unload()
