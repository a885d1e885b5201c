"""Models and jobs that do not fit the memory: where they are placed, and what is remembered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gpu_worker.pipeline.execution import fit, machine_size
from gpu_worker.pipeline.execution.device_errors import Fault, classify
from gpu_worker.pipeline.execution.machine_size import SIZES, Size
from gpu_worker.pipeline_api import GeneratedImage, OutOfMemory
from tests.support.builders import tiny_models
from tests.support.cuda.faults import FAULTS, accelerator_error
from tests.support.cuda.memory import DEVICES
from tests.support.cuda_matrix.cases import (
    GPU,
    Case,
    LooseBench,
    Pixels,
    case,
    difference,
    on_cpu,
    on_device,
    pixels,
    use_dtype,
)
from tests.support.pipeline_bench import Bench

SMALL: dict[str, Any] = {"width": 64, "height": 64}
LARGE: dict[str, Any] = {"width": 128, "height": 128}
TILED: dict[str, Any] = {"width": 256, "height": 64}


def run(folder: Path) -> None:
    """Print a line for each way in which memory may be too small."""
    use_dtype(torch.float32)
    tiny_models.build().save_pretrained(folder / "models" / "sd")
    reference = on_cpu(folder, "sd")
    expected = {name: pixels(reference.make(**size)) for name, size in _SIDES.items()}
    machine_size.set_tiles(reference.pipe.vae, 128)
    expected["tiled"] = pixels(reference.make(**TILED))
    weights = _weights(reference)
    del reference
    for check in _CHECKS:
        with case(check.__name__.strip("_")) as this, _whole_memory():
            check(this, folder, expected, weights)


_SIDES = {"small": SMALL, "large": LARGE}


def _weights(bench: Bench) -> int:
    parts = bench.pipe.components.values()
    networks = [part for part in parts if isinstance(part, torch.nn.Module)]
    return sum(fit.offload.weight_bytes(network) for network in networks)


@contextmanager
def _whole_memory() -> Iterator[None]:
    """Give the device its whole memory back afterwards."""
    try:
        yield
    finally:
        DEVICES[GPU].limit_bytes = DEVICES[GPU].total_bytes


def _compare(this: Case, images: list[GeneratedImage], expected: Pixels) -> dict[str, Any]:
    this.difference = max(this.difference, difference(pixels(images), expected))
    return images[0].metadata


def _size(bench: Bench) -> Any:
    """Return the MACHINE_SIZE that the record of the last job has."""
    return bench.ours.metadata["machine_size"]


def _expect(this: Case, what: str, value: object, right: object) -> None:
    if value != right:
        this.problems.append(f"{what} is {value} instead of {right}")


def _starts_smaller(this: Case, folder: Path, expected: dict[str, Pixels], weights: int) -> None:
    """A start with too little memory goes on with offload, also with MACHINE_SIZE set."""
    DEVICES[GPU].limit_bytes = weights * 9 // 10
    bench = on_device(folder, "sd", "big")
    _expect(this, "the size at the start", _size(bench), "little")
    DEVICES[GPU].limit_bytes = DEVICES[GPU].total_bytes
    _compare(this, bench.make(**SMALL), expected["small"])
    _expect(this, "the size of a job", _size(bench), "little")
    bench.ours.unload()


def _goes_down(this: Case, folder: Path, expected: dict[str, Pixels], weights: int) -> None:
    """A large job runs at the size that it needs; the next begins there, and small ones do not."""
    bench = on_device(folder, "sd", "big")
    memory = DEVICES[GPU]
    bench.make(**LARGE)
    memory.reset_peak()
    bench.make(**LARGE)
    memory.limit_bytes = memory.peak_bytes - weights // 8
    first = _compare(this, bench.make(**LARGE), expected["large"])
    size, errors = _size(bench), memory.out_of_memory_errors
    second = _compare(this, bench.make(**LARGE), expected["large"])
    _expect(this, "the number of errors", memory.out_of_memory_errors, errors)
    _expect(this, "the next job's reason", second.get("out_of_memory"), None)
    _expect(this, "the next job's size", _size(bench), size)
    _compare(this, bench.make(**SMALL), expected["small"])
    _expect(this, "a small job's size", _size(bench), "big")
    this.numbers = {"machine_size": size, "errors": errors}
    if size == "big" or "out_of_memory" not in first:
        this.problems.append("the job fitted at once")
    bench.ours.unload()


def _fits_nowhere(this: Case, folder: Path, expected: dict[str, Pixels], weights: int) -> None:
    """A job that fits at no size ends with a sentence, and the next one is drawn."""
    bench = on_device(folder, "sd", "big")
    bench.make(**SMALL)
    DEVICES[GPU].limit_bytes = DEVICES[GPU].allocated_bytes // 40
    try:
        bench.make(**LARGE)
        this.problems.append("the job was drawn")
    except OutOfMemory as error:
        _expect(this, "the advice", str(error).rpartition(": ")[2], "try a smaller image")
        _expect(this, "the size named", "MACHINE_SIZE=tiny" in str(error), True)
    DEVICES[GPU].limit_bytes = DEVICES[GPU].total_bytes
    _compare(this, bench.make(**SMALL), expected["small"])
    bench.ours.unload()


def _decodes_in_tiles(this: Case, folder: Path, expected: dict[str, Pixels], weights: int) -> None:
    """A decode that does not fit runs in tiles, and no step is repeated."""
    bench = on_device(folder, "sd", "big")
    vae, calls = type(bench.pipe.vae), 0
    own = vae.decode

    def decode(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if not arguments[0].use_tiling:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return own(*arguments, **options)

    vae.decode, steps = decode, []
    try:
        images = bench.make(on_step=lambda *step: steps.append(step[0]), **TILED)
        metadata = _compare(this, images, expected["tiled"])
        _expect(this, "the side of the tiles", metadata.get("vae_tile_px"), 128)
        _expect(this, "the size", _size(bench), "big")
        _expect(this, "the steps", steps, [1, 2])
        before = calls
        bench.make(**TILED)
        _expect(this, "the next job's number of decodes", calls - before, 1)
    finally:
        vae.decode = own
    _expect(this, "whether tiles stay", bench.pipe.vae.use_tiling, False)
    bench.ours.unload()


def _is_estimated(this: Case, folder: Path, expected: dict[str, Pixels], weights: int) -> None:
    """Without MACHINE_SIZE a model begins at the largest size that is free, without an error."""
    memory = DEVICES[GPU]
    bench = on_device(folder, "sd", "big")
    loaded = bench.ours._loaded
    assert loaded is not None
    side = loaded.default_side_px()
    needs = {size: fit.needed_bytes(bench.pipe, size, side) for size in SIZES}
    this.numbers = dict(needs)
    del loaded
    bench.ours.unload()
    cases: list[tuple[int, Size]] = [(needs["big"], "big"), (needs["big"] - 1, "little")]
    for free, size in [*cases, (needs["little"] - 1, "tiny")]:
        memory.limit_bytes = free + fit.CONTEXT_BYTES
        bench = LooseBench(folder, "sd", SDE_DEVICE="cuda", SDE_DTYPE="float32", MACHINE_SIZE=None)
        _expect(this, f"the size with {free} bytes", _size(bench), size)
        _compare(this, bench.make(**SMALL), expected["small"])
        bench.ours.unload()


def _is_reported_late(this: Case, folder: Path, expected: dict[str, Pixels], weights: int) -> None:
    """An error of the job turns out to be a lack of memory when the device is asked."""
    job = RuntimeError("a library failed")
    FAULTS.raise_at("cuda::synchronize", accelerator_error(2, "out of memory"))
    _expect(
        this, "what a late code 2 means", classify(job, torch.device("cuda", GPU)), Fault.MEMORY
    )
    FAULTS.raise_at("cuda::synchronize", accelerator_error(700, "an illegal memory access"))
    _expect(this, "what a late code 700 means", classify(job, torch.device("cuda")), Fault.DEVICE)
    _expect(this, "what no late code means", classify(job, torch.device("cuda")), Fault.JOB)


_CHECKS = (
    _starts_smaller,
    _goes_down,
    _fits_nowhere,
    _decodes_in_tiles,
    _is_estimated,
    _is_reported_late,
)
