"""The time of an image: stages by events and by the clock, what adds to it, and the gap after it.

The gap and the polls are measured on the whole service.
"""

from __future__ import annotations

import functools
import shutil
import statistics
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from bench.gpu import timeline
from bench.gpu.case import Measure, Part, rounded
from bench.gpu.ledger import Line
from bench.gpu.session import MODELS, Session
from bench.previews import Counted
from gpu_worker.output.result_records import encode_png, pixels_sha256
from tests.support.pipeline_bench import PROMPT
from tests.support.service import Service, eventually, running

STEPS = 20
ROUNDS = 3
JOBS = 6
POLL_S = 0.002
SERVED = ("sd15", "xl")


def part() -> Part:
    """Return the cases: each model's stages, what changes them, and the service."""
    cases: dict[str, Measure] = {}
    for model in MODELS:
        cases[f"{model} stages"] = functools.partial(stages, model=model)
        cases[f"{model} variants"] = functools.partial(variants, model=model)
    for model in SERVED:
        cases[f"{model} service"] = functools.partial(service, model=model)
    return Part(cases, case_s=90)


def _fields(session: Session) -> dict[str, Any]:
    return {"num_inference_steps": session.steps(STEPS)}


def stages(session: Session, line: Line, model: str) -> None:
    """Time the stages of an image: the first one of the process, and the median of later ones."""
    bench = session.current(model)
    first, _ = timeline.measure(bench, **_fields(session))
    runs = [timeline.measure(bench, **_fields(session)) for _ in range(ROUNDS)]
    each = [run.numbers() for run, _ in runs]
    image = runs[0][1][0].image
    line.numbers = rounded(
        {
            "first_image_ms": first.numbers()["image_ms"],
            **{name: statistics.median(run[name] for run in each) for name in each[0]},
            "png_ms": 1e3 * _seconds(lambda: encode_png(image)),
            "digest_ms": 1e3 * _seconds(lambda: pixels_sha256(image)),
        }
    )


def variants(session: Session, line: Line, model: str) -> None:
    """Time images in turn: plain, with previews, after empty_cache, several in a job, weighted."""
    bench = session.current(model)
    folder = Path(tempfile.mkdtemp(prefix="sde-"))
    file = Counted(folder, "bench")

    def offer(step: int, steps: int, preview: Any = None) -> None:
        if preview is not None:
            file.offer("a", preview)

    fields = _fields(session)
    runs: dict[str, Any] = {
        "plain": lambda: bench.make(**fields),
        "previews": lambda: bench.make(**fields, on_step=offer),
        "empty_cache": lambda: (torch.cuda.empty_cache(), bench.make(**fields)),
        "two_images": lambda: bench.make(**fields, num_images_per_prompt=2),
        "weighted": lambda: bench.make(**fields | {"prompt": "a (red:1.3) circle"}),
        "euler": lambda: bench.make(**fields, scheduler="EulerDiscreteScheduler"),
        "step_log": lambda: bench.make(**fields, step_log=True),
    }
    try:
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(ROUNDS):
            for name, run in runs.items():
                seconds[name].append(_seconds(run))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    medians = {f"{name}_ms": 1e3 * statistics.median(all_s) for name, all_s in seconds.items()}
    line.numbers = rounded(medians | {"previews_a_job": file.made / ROUNDS})


def _seconds(run: Any) -> float:
    """Return the seconds until the card is done with a call."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def service(session: Session, line: Line, model: str) -> None:
    """Time queued jobs of the whole service: the gap between two, and what fast polls add."""
    session.forget()
    folder = Path(tempfile.mkdtemp(prefix="sde-"))
    settings = {"SDE_MODEL": str(session.model(model)), "SDE_DEVICE": "cuda"}
    settings |= {"SDE_PIPELINE": "bench.gpu.faulty:load", "SDE_QUEUE_SIZE": str(2 * JOBS)}
    try:
        with running(folder, "gateway", "gpu_worker", **settings) as its:
            _records(its, session, 1)
            quiet = _records(its, session, JOBS)
            with_polls = _records(its, session, JOBS, polls=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    line.numbers = rounded(
        {
            "job_s": statistics.median(record["seconds"] for record in quiet),
            "gap_ms": statistics.median(_gaps_ms(quiet)),
            "job_s_polls": statistics.median(record["seconds"] for record in with_polls),
            "gap_ms_polls": statistics.median(_gaps_ms(with_polls)),
        }
        if len(quiet) > 1
        else {}
    )


def _records(
    its: Service, session: Session, count: int, polls: bool = False
) -> list[dict[str, Any]]:
    """Queue so many jobs and return their records; with polls, another thread asks all the time."""
    uuids = [its.submit(PROMPT, seed=7, **_fields(session)) for _ in range(count)]
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(POLL_S):
            its.job(uuids[-1])

    asking = threading.Thread(target=ask, daemon=True)
    if polls:
        asking.start()
    try:
        eventually(lambda: its.job(uuids[-1])["ended_time"], "the last job has ended", 80)
    finally:
        stop.set()
    records = [its.result(uuid) for uuid in uuids]
    errors = [error for record in records for error in record["errors"]]
    if errors:
        raise ValueError(f"a job of the service failed: {errors[0]}")
    return records


def _gaps_ms(records: list[dict[str, Any]]) -> list[float]:
    """Return the milliseconds between two jobs, in which the worker makes and stores a PNG."""
    ends = [datetime.fromisoformat(record["ended_time"]) for record in records]
    starts = [datetime.fromisoformat(record["started_time"]) for record in records]
    pairs = zip(ends, starts[1:], strict=False)
    return [(start - end).total_seconds() * 1e3 for end, start in pairs]
