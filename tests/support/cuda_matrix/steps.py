"""What a step costs the host: waits and copies, for each scheduler and MACHINE_SIZE.

The costs of two jobs of different length are subtracted, so what a job costs once does not count.
"""

from __future__ import annotations

from pathlib import Path

import torch

from gpu_worker.pipeline.execution.machine_size import SIZES
from tests.support.cuda.counters import COUNTERS
from tests.support.cuda_matrix import models
from tests.support.cuda_matrix.cases import case, on_device, use_dtype
from tests.support.pipeline_bench import Bench

FEW, MANY = 5, 8
SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
OF_ALL_SIZES = ("DDIMScheduler", "EulerDiscreteScheduler")
"""The schedulers that are measured at every size: what a size adds is the same for all."""


def run(folder: Path) -> None:
    """Print a line for each scheduler and size, with the costs of one step and where they arise."""
    use_dtype(torch.float32)
    models.save(folder)
    for size in SIZES:
        bench = on_device(folder, "sd", size)
        bench.make()
        for scheduler in SCHEDULERS if size == "big" else OF_ALL_SIZES:
            with case(f"{scheduler} {size}") as this:
                few, many = (_costs(bench, scheduler, steps) for steps in (FEW, MANY))
                this.numbers = {
                    kind: (many[kind].total() - few[kind].total()) / (MANY - FEW) for kind in few
                }
                waits = many["waits"] - few["waits"]
                this.numbers["places"] = sorted(waits, key=lambda at: -waits[at])[:4]


def _costs(bench: Bench, scheduler: str, steps: int) -> dict[str, object]:
    COUNTERS.reset()
    bench.make(scheduler=scheduler, num_inference_steps=steps)
    return {
        "waits": COUNTERS.waits,
        "to_device": COUNTERS.to_device.times,
        "from_device": COUNTERS.from_device.times,
    }
