"""Jobs that end in the middle: a stop, and errors of each kind, at every MACHINE_SIZE.

The job after it must draw what it drew before, with the pipeline in the state of before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gpu_worker.pipeline.execution.machine_size import SIZES
from gpu_worker.pipeline_api import DeviceLost, OutOfMemory
from tests.support.cuda.faults import FAULTS
from tests.support.cuda_matrix import models, requests, resting_state
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
from tests.support.pipeline_bench import Bench, Halt

FEATURES = {"sd": "all together", "xl": "refiner, lora"}
"""The jobs that are interrupted: those with the most to put back."""

Raise = Callable[[], None]


class OddError(RuntimeError):
    """An error of no kind that the product knows."""


def run(folder: Path) -> None:
    """Print a line for each kind of model, size, job and interruption."""
    use_dtype(torch.float32)
    models.save(folder)
    for kind, feature in FEATURES.items():
        reference = on_cpu(folder, kind)
        expected = pixels(reference.make())
        del reference
        for size in SIZES:
            bench = on_device(folder, kind, size)
            bench.make()
            before = resting_state.read(bench.pipe, GPU)
            wanted = requests.by_feature(bench, kind)
            for interruption in _INTERRUPTIONS:
                with case(f"{kind} {size} {feature}: {interruption.__name__}") as this:
                    with _repaired():
                        interruption(this, bench, wanted[feature])
                    _check_next(this, bench, expected, before)
            bench.ours.unload()


@contextlib.contextmanager
def _repaired() -> Any:
    try:
        yield
    finally:
        FAULTS.clear()


def _check_next(this: Case, bench: Bench, expected: Pixels, before: resting_state.State) -> None:
    bench.ours._fits._needs.clear()  # a quarter of an hour later, the usual size is tried again
    this.difference = difference(pixels(bench.make()), expected)
    this.problems += resting_state.changes(before, resting_state.read(bench.pipe, GPU))
    check_other_device(this)


def _at_step(number: int, act: Raise) -> Callable[..., None]:
    """Return an on_step that acts after the step of this number, in the first attempt alone."""
    is_over = False

    def on_step(step: int, steps: int, preview: Any = None) -> None:
        nonlocal is_over
        if step == number and not is_over:
            is_over = True
            act()

    return on_step


def _raise_next(error: Callable[[], BaseException | None]) -> Raise:
    """Return an act that makes the next operation of a kind that every step has fail."""
    return lambda: FAULTS.raise_at(r"^aten::(convolution|_convolution|addmm|mm|bmm)$", error())


def _exhausted() -> BaseException:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def stop(this: Case, bench: Bench, asked: dict[str, Any]) -> None:
    """Stop the job as the runner does, after its first step."""
    bench.halted(**asked)


def stop_within_a_step(this: Case, bench: Bench, asked: dict[str, Any]) -> None:
    """Stop the job in the middle of its second step."""
    with contextlib.suppress(Halt):
        bench.make(on_step=_at_step(1, _raise_next(Halt)), **asked)
        this.problems.append("the job was not stopped")


def out_of_memory(this: Case, bench: Bench, asked: dict[str, Any]) -> None:
    """Let an allocation fail once; the job then runs with the next smaller size."""
    try:
        images = bench.make(on_step=_at_step(1, _raise_next(_exhausted)), **asked)
    except OutOfMemory as failure:
        this.numbers["error"] = str(failure)
        return
    this.numbers["machine_size"] = images[0].metadata.get("machine_size")
    if "out_of_memory" not in images[0].metadata:
        this.problems.append("the record does not say that memory was short")


def out_of_memory_in_decode(this: Case, bench: Bench, asked: dict[str, Any]) -> None:
    """Let the same happen when the VAE decodes, which is the last that a job does."""
    vae = type(bench.pipe.vae)
    decode = vae.decode

    def failing(*arguments: Any, **options: Any) -> Any:
        vae.decode = decode
        raise _exhausted()

    vae.decode = failing
    try:
        with contextlib.suppress(OutOfMemory):
            bench.make(**asked)
    finally:
        vae.decode = decode


def other_error(this: Case, bench: Bench, asked: dict[str, Any]) -> None:
    """Raise an error of one request, after which the process goes on."""
    try:
        bench.make(on_step=_at_step(1, _raise_next(OddError)), **asked)
    except OddError:
        return
    this.problems.append("the error did not reach the runner")


def lost_device(this: Case, bench: Bench, asked: dict[str, Any]) -> None:
    """Lose the device, which the runner must be told so that it ends the process."""
    try:
        bench.make(on_step=_at_step(1, _raise_next(lambda: None)), **asked)
    except DeviceLost:
        pass
    except Exception as error:
        this.problems.append(f"{type(error).__name__} instead of DeviceLost")
    else:
        this.problems.append("the error did not reach the runner")
    FAULTS.clear()
    bench.ours.unload()


_INTERRUPTIONS = (
    stop,
    stop_within_a_step,
    out_of_memory,
    out_of_memory_in_decode,
    other_error,
    lost_device,
)
