"""Measures SDE_QUANTIZATION on a CPU: a UNet of Stable Diffusion 1.5's size, the built-in model.

The UNet's weights are random: bytes and seconds do not depend on them. Each setting runs in a
process of its own, as it does in a worker.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.table import markdown, number
from gpu_worker import quantization_libraries

MIB = 1 << 20
SETTINGS = ("none", "torchao-int8", "quanto-int8")
HEAD = (
    *("SDE_QUANTIZATION", "linear layers, MiB", "whole UNet, MiB", "s a step"),
    *("built-in model: PSNR, dB", "largest difference of 255"),
)
PROMPT = "a rocket on a blue background"


def size_bytes(weights: Any) -> int:
    """Of a tensor, or of the parts of one that is quantised."""
    if hasattr(weights, "__tensor_flatten__"):
        return sum(size_bytes(getattr(weights, name)) for name in weights.__tensor_flatten__()[0])
    return int(weights.numel() * weights.element_size())


def save_unet(folder: Path) -> None:
    """3.4 GB."""
    import torch

    from bench.architectures import ARCHITECTURES, build_unet

    build_unet(ARCHITECTURES["sd15"], torch.float32).save_pretrained(folder)


def unet_figures(setting: str, folder: Path) -> dict[str, float]:
    """One step with guidance at 512 px, the better of two."""
    import torch
    from diffusers import UNet2DConditionModel

    from gpu_worker.pipeline.loading import quantization

    config = quantization.config(worker_settings(setting, folder), torch.float32)
    more = {} if config is None else {"quantization_config": config.quant_mapping["unet"]}
    unet = UNet2DConditionModel.from_pretrained(folder, dtype=torch.float32, **more)
    torch.manual_seed(0)
    latents, text = torch.randn(2, 4, 64, 64), torch.randn(2, 77, 768)
    seconds = []
    with torch.inference_mode():
        for _ in range(2):
            started = time.perf_counter()
            unet(latents, 500, text)
            seconds.append(time.perf_counter() - started)
    linear = [each.weight for each in unet.modules() if isinstance(each, torch.nn.Linear)]
    everything = [*unet.parameters(), *unet.buffers()]
    return {
        "linear_mib": sum(map(size_bytes, linear)) / MIB,
        "mib": sum(map(size_bytes, everything)) / MIB,
        "seconds": min(seconds),
    }


def worker_settings(setting: str, folder: Path) -> Any:
    """Of a worker on the CPU."""
    from gpu_worker.settings import WorkerSettings, load

    given = {"SDE_DATA_DIR": str(folder), "SDE_DEVICE": "cpu", "SDE_QUANTIZATION": setting}
    return load(WorkerSettings, given)


def draw(setting: str, folder: Path, target: Path) -> None:
    """A picture of the built-in model, by the worker's own pipeline, as a PNG."""
    from gpu_worker import pipeline
    from gpu_worker.contract.job import Job
    from gpu_worker.contract.request import GenerationRequest

    request = GenerationRequest(prompt=PROMPT, seed=7, num_inference_steps=20)
    uuid = "00000000-0000-4000-8000-000000000000"
    job = Job(sequence=1, uuid=uuid, created_time="2026-01-01T00:00:00Z", request=request)
    drawn = pipeline.load(worker_settings(setting, folder)).generate(job, lambda *_: None)
    drawn[0].image.save(target)


def distance(one: Path, other: Path) -> list[str]:
    """PSNR in dB, and the largest difference of one channel of one pixel."""
    import numpy as np
    from PIL import Image

    pixels = [np.asarray(Image.open(each).convert("RGB")).astype(float) for each in (one, other)]
    apart = np.abs(pixels[0] - pixels[1])
    squares = float((apart**2).mean())
    psnr_db = 10 * np.log10(255**2 / squares) if squares else float("inf")
    return [number(float(psnr_db)), f"{apart.max():.0f}"]


def in_a_process(*case: str) -> dict[str, float]:
    """What a fresh interpreter has measured."""
    command = [sys.executable, "-W", "ignore", "-m", "bench.quantization", "--case", *case]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def run_case(setting: str, folder: Path) -> dict[str, float]:
    """In its own process; `save` has the UNet saved."""
    if setting == "save":
        save_unet(folder)
        return {}
    quantization_libraries.hide_unused(setting)  # type: ignore[arg-type]
    draw(setting, folder, folder / f"{setting}.png")
    return unet_figures(setting, folder)


def main() -> None:
    """Measure each setting, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs=2, metavar=("SETTING", "FOLDER"), help="one, as JSON")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run_case(options.case[0], Path(options.case[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        in_a_process("save", folder)
        found = {setting: in_a_process(setting, folder) for setting in SETTINGS}
        pictures = [Path(folder) / f"{setting}.png" for setting in SETTINGS]
        far = [
            distance(pictures[0], each) if each != pictures[0] else ["", ""] for each in pictures
        ]
    rows = [[each, *map(number, found[each].values()), *far[k]] for k, each in enumerate(SETTINGS)]
    print(markdown(HEAD, rows))


if __name__ == "__main__":
    main()
