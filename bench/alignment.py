"""What it costs that a CPU draws the same pixels wherever weights lie in memory.

Compares weights that a file has put 8 bytes off with weights that were aligned, and either with
MKL's conditional numerical reproducibility (MKL_CBWR), each setting in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from bench import architectures, demo_model
from bench.table import markdown, number, ratio
from gpu_worker.pipeline.execution import alignment
from gpu_worker.pipeline.loading.sources import DEMO_MODEL

OFF_BYTES = 8
"""Where the header of a .safetensors file ends: its length is a multiple of 8."""

SETTINGS = ("", "AUTO", "COMPATIBLE")
"""MKL_CBWR of each process; empty: unset."""

CPU = torch.device("cpu")


def misplace(pipe: Any) -> None:
    """Put every weight 8 bytes after a multiple of 64, as a mapped file may have it."""
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            for weight in (*module.parameters(), *module.buffers()):
                begin = OFF_BYTES // weight.element_size()
                memory = torch.empty(weight.numel() + begin, dtype=weight.dtype)
                weight.data = memory[begin:].view_as(weight).copy_(weight.data)


def seconds_of(call: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def measure(what: str, rounds: int) -> dict[str, float]:
    """Median seconds with misplaced and aligned weights, and what aligning them took."""
    if what == "demo":
        pipe: Any = demo_model.load(DEMO_MODEL)
        question = demo_model.make_questions(1)[0]

        def call() -> object:
            return demo_model.generate(pipe, question, 20, 4.0)
    else:
        known = architectures.ARCHITECTURES[what]
        pipe = architectures.build(known, torch.float32)
        pipe.set_progress_bar_config(disable=True)
        side = known.side_px // 8
        latents = torch.randn(2, 4, side, side)
        text = torch.randn(2, 77, pipe.unet.config.cross_attention_dim)

        def call() -> object:
            return pipe.unet(latents, 500, encoder_hidden_states=text, return_dict=False)

    taken: dict[str, list[float]] = {"misplaced_s": [], "align_s": [], "aligned_s": []}
    with torch.no_grad():
        call()
        for _ in range(rounds):  # in turn: the machine's pace drifts
            misplace(pipe)
            taken["misplaced_s"].append(seconds_of(call))
            begun = time.perf_counter()
            copied = alignment.align(pipe, CPU)
            taken["align_s"].append(time.perf_counter() - begun)
            taken["aligned_s"].append(seconds_of(call))
    found = {name: statistics.median(each) for name, each in taken.items()}
    return found | {"copied_bytes": copied}


def in_process(what: str, rounds: int, setting: str) -> dict[str, float]:
    """The same in a process with this MKL_CBWR."""
    environ = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    if setting:
        environ["MKL_CBWR"] = setting
    command = [sys.executable, "-m", "bench.alignment", "--rounds", str(rounds), "--one", what]
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """One table; every ratio is to misplaced weights without MKL_CBWR."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["demo", "sd15"])
    parser.add_argument("--one", help="measure this model in this process and print JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.rounds)))
        return
    rows = []
    for what in options.models:
        title = "built-in model, an image of 20 steps"
        if what != "demo":
            title = f"{architectures.ARCHITECTURES[what].title}, a step of 2 x the U-Net"
        base = 0.0
        for setting in SETTINGS:
            found = in_process(what, options.rounds, setting)
            base = base or found["misplaced_s"]
            rows.append(
                [
                    title,
                    setting or "unset",
                    number(found["misplaced_s"]),
                    number(found["aligned_s"]),
                    ratio(found["misplaced_s"], base),
                    ratio(found["aligned_s"], base),
                    number(found["align_s"]),
                    number(found["copied_bytes"] / 2**20),
                ]
            )
    head = [
        "",
        "MKL_CBWR",
        "misplaced s",
        "aligned s",
        "ratio",
        "aligned ratio",
        "copying s",
        "MiB",
    ]
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
