"""Jobs after which the model cannot be put back: what the job's outcome is, and what is loaded.

The next job must draw what it drew before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gpu_worker.pipeline.execution import fit
from gpu_worker.pipeline.execution.fit import Demand
from gpu_worker.pipeline.execution.machine_size import Size
from tests.support.builders import tiny_adapters, tiny_models
from tests.support.cuda.counters import COUNTERS
from tests.support.cuda.faults import FAULTS
from tests.support.cuda.memory import DEVICES
from tests.support.cuda_matrix.cases import (
    GPU,
    Case,
    Pixels,
    case,
    difference,
    on_cpu,
    on_device,
    pixels,
    use_dtype,
)
from tests.support.cuda_matrix.interruptions import OddError
from tests.support.pipeline_bench import Bench, Halt, write_library

COPIES = r"^aten::(_to_copy|copy_)$"
OFFLOADS: tuple[Size, ...] = ("big", "little", "tiny")

LORA: dict[str, Any] = {"loras": [{"name": "x", "weight": 0.7}]}
"""What a job adds to the model, so that its hooks are removed and set again."""


def run(folder: Path) -> None:
    """Print a line for each check at each offload, and for each that has a size of its own."""
    use_dtype(torch.float32)
    pipe = tiny_models.build()
    pipe.save_pretrained(folder / "models" / "sd")
    tiny_adapters.save_lora(pipe, folder / "models" / "x.safetensors")
    write_library(folder, loras={"x": {"source": "x.safetensors"}})
    expected = pixels(on_cpu(folder, "sd").make())
    for check in (a_stop_on_a_lost_device, a_stop_that_cannot_be_put_back):
        for size in OFFLOADS:
            for name, asked in {"plain": {}, "lora": LORA}.items():
                with case(f"{check.__name__} {size} {name}") as this:
                    _check(this, on_device(folder, "sd", size), check, asked, expected)
    for check in (another_dtype, a_move_that_fails, a_large_input_image, weights_that_are_there):
        with case(check.__name__) as this:
            _check(this, on_device(folder, "sd", "big"), check, {}, expected)


def _check(
    this: Case,
    bench: Bench,
    check: Callable[[Case, Bench, dict[str, Any]], None],
    asked: dict[str, Any],
    expected: Pixels,
) -> None:
    bench.make(**asked)
    try:
        check(this, bench, asked)
    finally:
        FAULTS.clear()
    bench.ours._fits._needs.clear()
    this.difference = difference(pixels(bench.make()), expected)
    bench.ours.unload()


def _expect(this: Case, what: str, value: object, right: object) -> None:
    if value != right:
        this.problems.append(f"{what} is {value} instead of {right}")


def _is_described(this: Case, bench: Bench, is_loaded: bool) -> None:
    described = any(each.loaded for each in bench.ours.describe().models.values())
    _expect(this, "whether a model is loaded", bench.ours.loaded is not None, is_loaded)
    _expect(this, "what the description says of it", described, is_loaded)


def _once(act: Callable[[], None]) -> Callable[..., None]:
    """Return an on_step that acts after the first step of a job's first attempt."""
    acts = [act]

    def on_step(step: int, steps: int, preview: Any = None) -> None:
        if acts:
            acts.pop()()

    return on_step


def _exhaust() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def _ends_with(
    this: Case,
    bench: Bench,
    error: type[BaseException],
    asked: dict[str, Any],
    act: Callable[[], None] = lambda: None,
) -> None:
    """Run a job that acts after its first step, once; it must end with this very kind of error."""
    try:
        bench.make(on_step=_once(act), **asked)
        this.problems.append("the job was drawn")
    except BaseException as failure:
        _expect(this, "the error", type(failure).__name__, error.__name__)


def a_stop_on_a_lost_device(this: Case, bench: Bench, asked: dict[str, Any]) -> None:
    """A stop stays a stop, and the device is asked once, whether it responds, and then left."""

    def act() -> None:
        FAULTS.lose_device()
        COUNTERS.reset()
        raise Halt

    _ends_with(this, bench, Halt, asked, act)
    _expect(this, "the operations afterwards", COUNTERS.operations, 0)
    _expect(this, "the calls", set(COUNTERS.calls) - {"synchronize"}, set())
    FAULTS.clear()
    bench.ours.unload()


def a_stop_that_cannot_be_put_back(this: Case, bench: Bench, asked: dict[str, Any]) -> None:
    """A stop stays a stop where a copy fails in its handler; the model is loaded anew."""

    def act() -> None:
        FAULTS.raise_at(COPIES, torch.OutOfMemoryError("CUDA out of memory."))
        raise Halt

    _ends_with(this, bench, Halt, asked, act)


def another_dtype(this: Case, bench: Bench, asked: dict[str, Any]) -> None:
    """A job that did not fit and changed a dtype runs at the next size, on a model loaded anew."""
    loaded = bench.ours._loaded

    def act() -> None:
        bench.pipe.vae.to(torch.float64)
        _exhaust()

    (image,) = bench.make(on_step=_once(act))
    _expect(this, "whether the record has the reason", "out_of_memory" in image.metadata, True)
    _expect(this, "the size", bench.ours.metadata["machine_size"], "little")
    _expect(this, "whether the model is the old one", bench.ours._loaded is loaded, False)
    _is_described(this, bench, is_loaded=True)


def a_move_that_fails(this: Case, bench: Bench, asked: dict[str, Any]) -> None:
    """A model that is moved in part is not loaded any more, and the description says so."""
    bench.ours._fits.note(str(bench.model), Demand(), "little")
    FAULTS.raise_at(COPIES, OddError("a copy failed"), count=3)
    _ends_with(this, bench, OddError, asked)
    _is_described(this, bench, is_loaded=False)


def a_large_input_image(this: Case, bench: Bench, asked: dict[str, Any]) -> None:
    """An image made from a large one needs the memory of a large one."""
    picture = bench.put(tiny_adapters.drawing(96, 64))
    bench.make(on_step=_once(_exhaust), image=picture, strength=1.0)
    needs = bench.ours._fits._needs[str(bench.model)]
    _expect(this, "the demand", [each.demand for each in needs], [Demand(96 * 64)])
    bench.make()
    _expect(this, "a small job's size", bench.ours.metadata["machine_size"], "big")


def weights_that_are_there(this: Case, bench: Bench, asked: dict[str, Any]) -> None:
    """What bitsandbytes has put on the device is not counted as lacking."""
    pipe, memory, side = bench.pipe, DEVICES[GPU], 32
    pipe.to("cpu")
    pipe.unet.to(f"cuda:{GPU}")
    before = memory.allocated_bytes
    needed = fit.needed_bytes(pipe, "big", side)
    there = fit.offload.resident_bytes(pipe, torch.device("cuda", GPU))
    _expect(this, "the weights that are there", there, fit.offload.weight_bytes(pipe.unet))
    memory.limit_bytes = before + needed - there + fit.CONTEXT_BYTES
    try:
        fits = fit.Fits("big", torch.device("cuda", GPU), is_fixed=False)
        _expect(this, "the size", fits.first("sd", pipe, side), "big")
        memory.limit_bytes -= 1
        _expect(this, "the size with a byte less", fits.first("sd", pipe, side), "little")
    finally:
        memory.limit_bytes = memory.total_bytes
        pipe.to(f"cuda:{GPU}")
