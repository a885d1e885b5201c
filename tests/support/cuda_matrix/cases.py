"""One case of the matrix: a job on the device beside the same job on the CPU, as a JSON line."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.support.cuda.memory import DEVICES
from tests.support.pipeline_bench import Bench

GPU, OTHER = 0, 1
"""The device of all jobs. Nothing may land on the other one."""

Pixels = list[np.ndarray[Any, Any]]


@dataclass
class Case:
    """What a line says. `problems` are sentences; a case without any is as it should be."""

    name: str
    difference: int = 0
    problems: list[str] = field(default_factory=list)
    cpu_seconds: float = 0.0
    numbers: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def case(name: str) -> Iterator[Case]:
    """Yield a case and print it, with the error that ended it."""
    start, this = time.process_time(), Case(name)
    try:
        yield this
    except Exception as error:
        this.problems.append(f"{type(error).__name__}: {error}"[:500])
    this.cpu_seconds = round(time.process_time() - start, 3)
    print(json.dumps(asdict(this)), flush=True)


def use_dtype(dtype: torch.dtype) -> None:
    """Load every later model in this dtype, so that a GPU's images can be held to the CPU's."""
    os.environ["SDE_DTYPE"] = str(dtype).removeprefix("torch.")


class LooseBench(Bench):
    """A bench that can be let go of: what is frozen is never collected, and stays on the device."""

    def _freeze(self) -> None:
        """Freeze nothing."""


def on_cpu(folder: Any, model: str, size: str = "big") -> Bench:
    """Return the worker's pipeline on the CPU."""
    return LooseBench(folder, model, SDE_DEVICE="cpu", MACHINE_SIZE=size)


def on_device(folder: Any, model: str, size: str) -> Bench:
    """Return the worker's pipeline on the make-believe device."""
    return LooseBench(
        folder,
        model,
        SDE_DEVICE="cuda",
        MACHINE_SIZE=size,
        SDE_DTYPE=os.environ.get("SDE_DTYPE", "auto"),
    )


def pixels(images: list[Any]) -> Pixels:
    """Return the pixels of generated images, as signed integers."""
    return [np.asarray(each.image, dtype=np.int16) for each in images]


def difference(one: Pixels, other: Pixels) -> int:
    """Return the largest difference of two jobs' pixels, of 255."""
    if [each.shape for each in one] != [each.shape for each in other]:
        raise ValueError("the images have other sizes than on the CPU")
    return max(int(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def check_other_device(this: Case) -> None:
    """Note whether anything was ever put on a device that no job names."""
    if DEVICES[OTHER].peak_bytes:
        this.problems.append(f"{DEVICES[OTHER].peak_bytes} bytes were put on cuda:1")
        DEVICES[OTHER].reset_peak()


class Previews:
    """A job's on_step that makes a preview at each step."""

    def __init__(self) -> None:
        self.images: list[Image.Image] = []
        self.errors: list[str] = []

    def __call__(self, step: int, steps: int, preview: Any = None) -> None:
        if preview is None:  # it would move an offloaded VAE
            return
        try:
            self.images.append(preview())
        except Exception as error:
            self.errors.append(f"a preview failed: {type(error).__name__}: {error}"[:300])
