"""From the disk to the first image: cold and warm files, other ways to load, adapters of a job."""

from __future__ import annotations

import functools
import gc
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bench.gpu import card
from bench.gpu.case import Part, by_model, rounded
from bench.gpu.ledger import Line
from bench.gpu.session import Session
from gpu_worker.assets.file_digests import FileDigests
from tests.support.builders import tiny_adapters
from tests.support.pipeline_bench import Bench, write_library

MODELS = ("sd15", "xl")
WORKERS = 2
STEPS = 4
ROUNDS = 3


def part() -> Part:
    """Return the cases."""
    cases = by_model(MODELS, _CASES)
    cases["sd15 adapters"] = functools.partial(adapters, model="sd15")
    return Part(cases, case_s=120)


def cold(session: Session, line: Line, model: str) -> None:
    """Load with files that are not in the machine's memory."""
    _drop_from_memory(session.model(model))
    line.numbers = _load(session, model)


def warm(session: Session, line: Line, model: str) -> None:
    """Load with files that are in the machine's memory."""
    session.model(model)
    line.numbers = _load(session, model)


def _load(session: Session, model: str) -> dict[str, Any]:
    """Return the seconds of the worker's load and of the first two jobs."""
    marks = [time.perf_counter()]
    bench = session.pipeline(model, MACHINE_SIZE="big")
    torch.cuda.synchronize()
    marks.append(time.perf_counter())
    for _ in range(2):
        bench.make(num_inference_steps=STEPS)
        marks.append(time.perf_counter())
    bench.ours.unload()
    names = ("load_s", "first_job_s", "second_job_s")
    pairs = itertools.pairwise(marks)
    size = sum(file.stat().st_size for file in session.model(model).rglob("*.safetensors"))
    seconds = dict(zip(names, (end - start for start, end in pairs), strict=True))
    return rounded({**seconds, "gb_s": size / 1e9 / seconds["load_s"]})


def _drop_from_memory(folder: Path) -> None:
    """Ask Linux to forget the files of a folder, which it may do in part."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def straight(session: Session, line: Line, model: str) -> None:
    """Load with diffusers alone: by way of the CPU, and straight to the card."""
    from diffusers import DiffusionPipeline

    folder = session.model(model)
    ways: dict[str, Any] = {"via_cpu_s": {}}
    if not card.is_make_believe():  # accelerate reads the card's memory from the driver
        ways["device_map_s"] = {"device_map": "cuda"}
    for name, options in ways.items():
        start = time.perf_counter()
        pipe = DiffusionPipeline.from_pretrained(
            folder, dtype=torch.float16, use_safetensors=True, **options
        )
        if not options:  # a pipeline with a device map refuses to be moved
            pipe.to(card.DEVICE)
        torch.cuda.synchronize()
        line.numbers[name] = time.perf_counter() - start
        del pipe
        gc.collect()
        torch.cuda.empty_cache()
    line.numbers = rounded(line.numbers)


def digest(session: Session, line: Line, model: str) -> None:
    """Compute the digest of a model's files alone, which the worker does beside a load."""
    folder = session.model(model)
    start = time.perf_counter()
    FileDigests(session.work / "digests.json").of(folder)
    line.numbers = rounded({"digest_s": time.perf_counter() - start})


def several_workers(session: Session, line: Line, model: str) -> None:
    """Load in two processes at once, as two workers do."""
    session.model(model)
    command = [sys.executable, "-m", "bench.gpu.one_job", str(session.work), model, str(STEPS)]
    children = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(WORKERS)
    ]
    outputs = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        raise ValueError("a process that loads the model has failed; the log says why")
    each = [json.loads(output.splitlines()[-1]) for output in outputs]
    names = ("import_s", "load_s", "first_s", "second_s")
    line.numbers = {name: max(one[name] for one in each) for name in names}


_CASES: dict[str, Any] = {
    "cold": cold,
    "warm": warm,
    "diffusers alone": straight,
    "digest": digest,
    "two processes": several_workers,
}


def adapters(session: Session, line: Line, model: str) -> None:
    """Time jobs with each adapter, which is read and attached for each job."""
    folder = session.work / "adapters"
    if not (folder / "models" / "models.toml").exists():
        _save_adapters(session, model, folder)
    bench = session.bench(folder, model, MACHINE_SIZE="big")
    image = bench.put(tiny_adapters.drawing(64, 64))
    net = {"name": "net", "image": image}
    requests: dict[str, dict[str, Any]] = {
        "plain": {},
        "lora": {"loras": [{"name": "lora", "weight": 0.7}]},
        "controlnet": {"controlnets": [net]},
        "ip_adapter": {"ip_adapter": {"name": "ip", "image": image}},
    }
    for name, request in requests.items():
        try:
            seconds = [_job_s(bench, request) for _ in range(ROUNDS)]
        except Exception as error:
            line.problems.append(f"{name}: {error}"[:400])
            torch.cuda.synchronize()  # a lost card ends the case here
            continue
        line.numbers |= {f"{name}_first_s": seconds[0], f"{name}_s": statistics.median(seconds[1:])}
    bench.ours.unload()
    line.numbers = rounded(line.numbers)


def _job_s(bench: Bench, request: dict[str, Any]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    bench.make(num_inference_steps=STEPS, **request)
    return time.perf_counter() - start


def _save_adapters(session: Session, model: str, folder: Path) -> None:
    """Save adapters of the model's own size beside a link to it."""
    models = folder / "models"
    models.mkdir(parents=True, exist_ok=True)
    if not (models / model).exists():
        (models / model).symlink_to(session.model(model))
    pipe = session.build(session.architecture(model), torch.float32)
    tiny_adapters.save_lora(pipe, models / "lora.safetensors", text=True)
    if not (models / "net").exists():
        _save_controlnet(pipe, models / "net")
    if not (models / "ip").exists():
        tiny_adapters.save_ip_adapter(pipe, models / "ip")
    write_library(
        folder,
        loras={"lora": {"source": "lora.safetensors"}},
        controlnets={"net": {"source": "net"}},
        ip_adapters={"ip": {"source": "ip/adapter.safetensors"}},
    )


def _save_controlnet(pipe: Any, folder: Path) -> None:
    """Save a ControlNet for the model; that of a tiny one halves the image, not a real one's."""
    if card.is_make_believe():
        tiny_adapters.save_controlnet(pipe, folder)
    else:
        from diffusers import ControlNetModel

        ControlNetModel.from_unet(pipe.unet).to(torch.float16).save_pretrained(folder)
