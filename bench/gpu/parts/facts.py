"""What the machine, its card and the libraries are, and what the worker would choose there."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench.gpu import card
from bench.gpu.case import Part, Skip, expect, rounded
from bench.gpu.ledger import Line
from bench.gpu.session import Session
from gpu_worker.pipeline import families
from gpu_worker.pipeline.execution import dtypes, machine_size
from gpu_worker.pipeline.execution.device import start_device
from gpu_worker.settings import DEFAULT_PIPELINE
from tests.support.service import environment

LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "peft", "compel", "triton")
FIELDS: tuple[str, ...] = ("driver_version", "memory.total", "memory.used", "pstate", "clocks.sm")
FIELDS += ("clocks.max.sm", "power.limit", "temperature.gpu", "pcie.link.gen.current")
LEAST_CUDNN = 91500
"""Older versions of cuDNN have slow or wrong attention kernels on Hopper cards."""

PIPELINES: tuple[str, ...] = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
PIPELINES += ("StableDiffusion3Pipeline", "FluxPipeline", "QwenImagePipeline")
PIPELINES += ("ZImagePipeline", "SanaPipeline")
"""One class of each way to choose dtypes."""

COPY_BYTES = 256 << 20
MATRIX = 8192


def part() -> Part:
    """Return the cases."""
    return Part(
        {"machine": machine, "card": of_card, "libraries": libraries, "worker": worker}
        | {"missing card": missing_card, "speed": speed}
    )


def machine(_: Session, line: Line) -> None:
    """Name the processor, the memory and the system."""
    line.numbers = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "memory_gib": round(machine_size.memory_bytes(torch.device("cpu")) / card.GIB, 1),
        "disk_free_gib": round(shutil.disk_usage(".").free / card.GIB, 1),
        "compiler": shutil.which("cc") or shutil.which("gcc") or "none",
    }


def of_card(_: Session, line: Line) -> None:
    """Name the card, as torch and as the driver see it."""
    capability = torch.cuda.get_device_capability(card.DEVICE)
    architectures = torch.cuda.get_arch_list()
    free, total = torch.cuda.mem_get_info(card.DEVICE)
    line.numbers = {
        "name": card.name(),
        "count": torch.cuda.device_count(),
        "capability": ".".join(map(str, capability)),
        "architectures": " ".join(architectures),
        "free_gib": round(free / card.GIB, 2),
        "total_gib": round(total / card.GIB, 2),
        "bfloat16": torch.cuda.is_bf16_supported(including_emulation=False),
        **driver(),
    }
    has_kernels = f"sm_{capability[0]}{capability[1]}" in architectures
    expect(line, has_kernels, "torch has no kernels of its own for this card")


def driver() -> dict[str, str]:
    """Return what nvidia-smi says of the first card; nothing where it is not installed."""
    if shutil.which("nvidia-smi") is None or card.is_make_believe():
        return {}
    command = ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader", "--id=0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(FIELDS, values, strict=False)) if done.returncode == 0 else {}


def libraries(_: Session, line: Line) -> None:
    """Name the libraries, and the settings that rounding and speed depend on."""
    cudnn = None if card.is_make_believe() else torch.backends.cudnn.version()
    line.numbers = {name: _version(name) for name in LIBRARIES} | {
        "cuda": torch.version.cuda,
        "cudnn": cudnn,
        "attention_order": str(_attention_order()),
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "allocator": os.environ.get("PYTORCH_ALLOC_CONF", "default"),
    }
    expect(line, cudnn is None or cudnn > LEAST_CUDNN, f"cuDNN is older than {LEAST_CUDNN}")


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _attention_order() -> Any:
    order = getattr(torch._C, "_get_sdp_priority_order", None)
    return None if order is None else order()


def worker(_: Session, line: Line) -> None:
    """Note what the worker chooses on this card."""
    start = time.perf_counter()
    device = start_device("auto", 0)
    seconds = time.perf_counter() - start
    chosen = {name: dtypes.choose(families.family_of(name), device) for name in PIPELINES}
    line.numbers = {
        "device": str(device),
        "start_s": round(seconds, 3),
        "machine_size": machine_size.choose_size(machine_size.memory_bytes(device)),
        "dtypes": {
            name.removesuffix("Pipeline"): " ".join(
                [str(of.default), *(f"{part}={dtype}" for part, dtype in of.parts.items())]
            ).replace("torch.", "")
            for name, of in chosen.items()
        },
    }
    expect(line, device.type == "cuda", f"SDE_DEVICE=auto is {device} although there is a card")


def missing_card(session: Session, line: Line) -> None:
    """Start a worker for a card beyond the last one, which must end it with a sentence.

    Raises:
        Skip: the make-believe card takes every number for its own.
    """
    if card.is_make_believe():
        raise Skip("the make-believe card has every number")
    gpu = torch.cuda.device_count()
    folder = Path(tempfile.mkdtemp(prefix="sde-"))
    done = subprocess.run(
        [sys.executable, "-m", "gpu_worker"],
        env=environment(folder, 0, SDE_GPU=str(gpu), SDE_PIPELINE=DEFAULT_PIPELINE),
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    shutil.rmtree(folder, ignore_errors=True)
    answer = (done.stderr.strip().splitlines() or ["nothing"])[-1]
    line.numbers = {"SDE_GPU": gpu, "exit_code": done.returncode, "answer": answer}
    expect(line, done.returncode != 0, f"SDE_GPU={gpu} started a worker")
    expect(
        line, "SDE_GPU" in done.stderr, f"the worker's last line does not name SDE_GPU: {answer}"
    )


def speed(session: Session, line: Line) -> None:
    """Measure copies and a matrix product, which the other figures are held to."""
    size, side = (1 << 16, 64) if card.is_make_believe() else (COPY_BYTES, MATRIX)
    host, pinned = torch.ones(size, dtype=torch.uint8), torch.ones(size, dtype=torch.uint8)
    pinned = pinned.pin_memory()
    there = torch.ones(size, dtype=torch.uint8, device=card.DEVICE)
    one = torch.ones(side, side, dtype=torch.bfloat16, device=card.DEVICE)
    jobs = {
        "to_card_gb_s": (lambda: there.copy_(host), size / 1e9),
        "pinned_to_card_gb_s": (lambda: there.copy_(pinned, non_blocking=True), size / 1e9),
        "from_card_gb_s": (there.cpu, size / 1e9),
        "on_card_gb_s": (there.clone, 2 * size / 1e9),
        "bf16_tflops": (lambda: one @ one, 2 * side**3 / 1e12),
    }
    line.numbers = rounded({name: _rate(run, work) for name, (run, work) in jobs.items()})


def _rate(run: Any, work: float) -> float:
    """Return work a second, the best of five runs after one that warms up."""
    run()
    best = float("inf")
    for _ in range(5):
        start = card.event()
        run()
        best = min(best, card.milliseconds(start, card.event()) or best)
    return work / best * 1e3
