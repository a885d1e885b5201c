"""What the worker does when the card's memory is too small: for a load, for a step, for a decode.

The limit is torch's own, for this process. Each case ends with a job without a limit.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from bench.gpu import card, pictures
from bench.gpu.case import Measure, Part, expect, rounded
from bench.gpu.ledger import Line
from bench.gpu.session import Session
from gpu_worker.pipeline_api import OutOfMemory
from tests.support.pipeline_bench import Bench

MODELS = ("sd15", "xl")
STEPS = 3
LEAST_DB = 25.0
"""Tiles and other kernels change an image a little; a broken one has some 10 dB."""

REPORT = ("vae_tile_px", "vae_dtype", "out_of_memory")
MIB = 1 << 20


def part() -> Part:
    """Return the cases: the needs of each model, and then less than each of them."""
    cases: dict[str, Measure] = {}
    for model in MODELS:
        cases[f"{model} needs"] = functools.partial(needs, model=model)
        for stage in ("load", "step", "decode"):
            cases[f"{model} {stage}"] = functools.partial(too_little, model=model, stage=stage)
    return Part(cases, case_s=90)


def needs(session: Session, line: Line, model: str) -> None:
    """Measure what the weights, the steps and the decode take of torch's memory."""
    bench = session.pipeline(model, MACHINE_SIZE="big")
    bench.make(num_inference_steps=STEPS)
    torch.cuda.empty_cache()
    weights = torch.cuda.memory_reserved(card.DEVICE)
    peaks: list[int] = []

    def on_step(step: int, steps: int, preview: Any = None) -> None:
        if step == steps:
            torch.cuda.synchronize()
            peaks.append(torch.cuda.max_memory_reserved(card.DEVICE))

    torch.cuda.reset_peak_memory_stats(card.DEVICE)
    bench.make(num_inference_steps=STEPS, on_step=on_step)
    whole = torch.cuda.max_memory_reserved(card.DEVICE)
    bench.ours.unload()
    sizes = {"weights": weights, "steps": peaks[0], "decode": whole}
    line.numbers = {f"{name}_mib": round(size / MIB, 2) for name, size in sizes.items()}


def too_little(session: Session, line: Line, model: str, stage: str) -> None:
    """Run a job where one stage does not fit, then one with all the memory."""
    limit = _limit_mib(session.numbers.get(("memory_faults", f"{model} needs"), {}), stage)
    line.numbers["limit_mib"] = round(limit, 2)
    reference = session.pipeline(model, MACHINE_SIZE="big")
    expected = reference.make(num_inference_steps=STEPS)
    before = pictures.state(reference.pipe)
    reference.ours.unload()
    del reference
    with _warnings() as texts, card.memory_limit(int(limit * MIB)):
        _run_limited(session, line, model, expected)
    line.numbers["warnings"] = texts
    _check_after(line, session.pipeline(model, MACHINE_SIZE="big"), expected, before)


def _run_limited(session: Session, line: Line, model: str, expected: list[Any]) -> None:
    """Run two jobs with little memory and one with all of it, in the same pipeline."""
    try:
        bench = session.pipeline(model)
        images = bench.make(num_inference_steps=STEPS)
        second = bench.make(num_inference_steps=STEPS)
    except OutOfMemory as refusal:
        line.numbers["refusal"] = str(refusal)
        # The steps of a tiny model need more than its weights, so no size helps there.
        expect(line, card.is_make_believe(), f"the job was refused: {refusal}")
        return
    about = images[0].metadata
    line.numbers |= {name: about[name] for name in REPORT if name in about}
    line.numbers["machine_size"] = bench.placement
    line.numbers["second_tried_again"] = "out_of_memory" in second[0].metadata
    _compare(line, expected, images, "the job with little memory")
    _compare(line, expected, second, "the second job with little memory")
    torch.cuda.set_per_process_memory_fraction(1.0, card.DEVICE)
    _compare(line, expected, bench.make(num_inference_steps=STEPS), "the third with all of it")
    bench.ours.unload()


def _limit_mib(needed: dict[str, Any], stage: str) -> float:
    """Return a limit that this stage alone passes, or that it passes first.

    Raises:
        ValueError: the needs were not measured.
    """
    if not needed:
        raise ValueError("the needs of the model were not measured")
    weights, steps, decode = (needed[f"{name}_mib"] for name in ("weights", "steps", "decode"))
    if stage == "load":
        return float(0.6 * weights)
    if stage == "step":
        return float((weights + steps) / 2)
    return float((steps + decode) / 2)


def _check_after(line: Line, bench: Bench, expected: list[Any], before: dict[str, str]) -> None:
    """Draw with all the memory, and compare the dtypes of all parts with those of before."""
    after = bench.make(num_inference_steps=STEPS)
    _compare(line, expected, after, "a job of a new pipeline")
    dtypes = {part: place.split(" on ")[0] for part, place in before.items()}
    now = {part: place.split(" on ")[0] for part, place in pictures.state(bench.pipe).items()}
    changed = {part: dtype for part, dtype in now.items() if dtype != dtypes.get(part)}
    changed.pop("offload", None)
    expect(line, not changed, f"the dtypes of parts changed: {changed}")
    bench.ours.unload()
    line.numbers["left_mib"] = pictures.allocated_mib()
    line.numbers = rounded(line.numbers)


def _compare(line: Line, expected: list[Any], images: list[Any], what: str) -> None:
    decibel = pictures.psnr_db(images, expected)
    line.numbers[f"{what}, dB"] = round(decibel, 1)
    expect(line, decibel > LEAST_DB, f"{what}: {decibel:.1f} dB to the image with all the memory")


class _Texts(logging.Handler):
    """Keeps the texts of warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        self.texts.append(record.getMessage())


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Yield the list of what the worker logs as a warning: what it tried."""
    handler, logger = _Texts(), logging.getLogger("gpu_worker")
    logger.addHandler(handler)
    try:
        yield handler.texts
    finally:
        logger.removeHandler(handler)
