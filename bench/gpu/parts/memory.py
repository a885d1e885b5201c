"""Memory and time at each MACHINE_SIZE, as bench.memory has them, and beside other offloads."""

from __future__ import annotations

import functools
import gc
import itertools
import statistics
import time
from dataclasses import asdict
from typing import Any

import torch

from bench import memory_case
from bench.gpu import card
from bench.gpu.case import Measure, Part, rounded
from bench.gpu.ledger import Line
from bench.gpu.parts.facts import driver
from bench.gpu.session import MODELS, Session
from gpu_worker.pipeline.execution import dtypes, fit, machine_size
from gpu_worker.pipeline.execution.machine_size import SIZES
from gpu_worker.pipeline.families import family_of

MIB = 1 << 20
STEPS = 4
OFFLOADED = ("sd15", "xl")


def part() -> Part:
    """Return the cases: sizes of each model, then the offloads that the worker does not use."""
    cases: dict[str, Measure] = {
        f"{model} {size}": functools.partial(of_size, model=model, size=size)
        for model in MODELS
        for size in SIZES
    }
    for model in OFFLOADED:
        for name in _OFFLOADS:
            cases[f"{model} {name}"] = functools.partial(of_offload, model=model, name=name)
    return Part(cases, case_s=150)


def of_size(session: Session, line: Line, model: str, size: machine_size.Size) -> None:
    """Measure one model at one size, and what the worker estimated for it."""
    known = session.architecture(model)
    steps = session.steps(memory_case.GPU_STEPS)
    figures = memory_case.measure(known, size, steps, False, session.build)
    estimate = _estimates(session, model)[size]
    measured = asdict(figures)
    sizes = {f"{name}_mib": measured[f"{name}_bytes"] / MIB for name in _SIZES}
    peak = figures.before_bytes + max(measured[f"{name}_bytes"] for name in _SIZES[1:])
    seconds = {name: measured[name] for name in ("text_s", "step_s", "vae_s", "whole_s")}
    more = {"peak_mib": peak / MIB, "estimate_mib": estimate / MIB}
    line.numbers = rounded({**sizes, **more, **seconds})
    line.numbers["nvidia_smi"] = driver().get("memory.used")
    _forget()


@functools.cache
def _estimates(session: Session, model: str) -> dict[str, int]:
    """Return the bytes that the worker estimates for a model at each size."""
    known = session.architecture(model)
    pipe = session.build(known, torch.float16)
    dtypes.settle(pipe, dtypes.choose(family_of(pipe), card.DEVICE))
    return {size: fit.needed_bytes(pipe, size, known.side_px) for size in SIZES}


_SIZES = ("weights", "text", "steps", "vae")


def _sequential(pipe: Any) -> None:
    """Offload layer by layer as accelerate does."""
    pipe.enable_sequential_cpu_offload(device=card.DEVICE)


def _groups(pipe: Any, *, use_stream: bool) -> None:
    """Offload blocks of layers."""
    pipe.enable_group_offload(
        onload_device=card.DEVICE,
        offload_type="block_level",
        num_blocks_per_group=2,
        use_stream=use_stream,
    )


_OFFLOADS: dict[str, Any] = {
    "accelerate's layers": _sequential,
    "groups of blocks": functools.partial(_groups, use_stream=False),
    "groups, prefetched": functools.partial(_groups, use_stream=True),
}


def of_offload(session: Session, line: Line, model: str, name: str) -> None:
    """Measure a step and the peak with an offload that the worker does not use."""
    known = session.architecture(model)
    pipe = session.build(known, torch.float16)
    pipe.set_progress_bar_config(disable=True)
    _OFFLOADS[name](pipe)
    torch.cuda.reset_peak_memory_stats(card.DEVICE)
    marks: list[float] = []

    def step_ended(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> Any:
        torch.cuda.synchronize()
        marks.append(time.perf_counter())
        return tensors

    pipe(
        memory_case.PROMPT,
        width=known.side_px,
        height=known.side_px,
        num_inference_steps=STEPS,
        generator=torch.Generator("cpu").manual_seed(0),
        output_type="latent",
        callback_on_step_end=step_ended,
    )
    seconds = [later - earlier for earlier, later in itertools.pairwise(marks)]
    peak = torch.cuda.max_memory_allocated(card.DEVICE)
    line.numbers = rounded({"step_s": statistics.median(seconds), "peak_mib": peak / MIB})
    del pipe
    _forget()


def _forget() -> None:
    gc.collect()
    torch.cuda.empty_cache()
