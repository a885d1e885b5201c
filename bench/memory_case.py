"""One case of bench/memory.py, in the process that it measures: prints its figures as JSON.

Measured by part: the text encoders, the denoising steps, the VAE to the picture in hand.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench import architectures
from bench.architectures import Architecture
from bench.memory import Figures
from gpu_worker.pipeline.execution import dtypes, machine_size, vae_calls
from gpu_worker.pipeline.execution.device import choose_device
from gpu_worker.pipeline.execution.memory import PeakMemory, bytes_in_use
from gpu_worker.pipeline.families import family_of
from gpu_worker.pipeline.loading import loader

GIB = 1 << 30
SPARE_BYTES = 2 * GIB
"""Left to the other processes of the machine."""

PROMPT = "a large red circle on a blue background"
GUIDANCE_SCALE = 7.5
GPU_STEPS, GPU_ROUNDS = 10, 3


class Marks:
    """Seconds and peak of memory between one mark and the next."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: list[float] = []
        self.peaks: list[int] = []
        self.restart()

    def restart(self) -> None:
        """From here on."""
        self._synchronize()
        self._peak = PeakMemory(self._device)
        self._begun = time.perf_counter()

    def mark(self) -> None:
        """Here something ends and the next begins."""
        self._synchronize()
        self.seconds.append(time.perf_counter() - self._begun)
        self.peaks.append(self._peak.read())
        self.restart()

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def call(pipe: Any, known: Architecture, steps: int, marks: Marks | None = None) -> None:
    """One picture; marks at the first step's begin, at each step's end, at the picture.

    Raises:
        ValueError: the latents are no numbers any more.
    """

    def step_ended(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> Any:
        if index + 1 == steps and not tensors["latents"].isfinite().all():
            raise ValueError(f"{known.title}: latents are not finite")
        if marks is not None:
            marks.mark()
        return tensors

    def step_begins(*_: Any) -> None:
        if marks is not None and not marks.seconds:
            marks.mark()

    first = pipe.unet.register_forward_pre_hook(step_begins)
    pipe(
        PROMPT,
        width=known.side_px,
        height=known.side_px,
        num_inference_steps=steps,
        guidance_scale=GUIDANCE_SCALE,
        generator=torch.Generator("cpu").manual_seed(0),
        callback_on_step_end=step_ended,
    )
    first.remove()
    if marks is not None:
        marks.mark()


def measure(
    known: Architecture,
    size: machine_size.Size,
    steps: int | None,
    slice_attention: bool,
    build: Callable[[Architecture, torch.dtype], Any] = architectures.build,
) -> Figures:
    """The figures of one case on the device that the worker would take."""
    device = choose_device("auto", 0)
    loader.silence_libraries()
    pipe = build(known, architectures.dtype(device))
    pipe.set_progress_bar_config(disable=True)
    # As the worker loads it: the VAE has its own dtype, which no call changes.
    dtypes.settle(pipe, dtypes.choose(family_of(pipe), device))
    vae_calls.install_all(pipe)
    weights = architectures.weights_bytes(pipe)
    machine_size.apply(pipe, size, device)
    if slice_attention:
        pipe.enable_attention_slicing("max")
    is_gpu = device.type == "cuda"
    if is_gpu:
        call(pipe, known, 2)  # what the first call of a process alone does
    before = bytes_in_use(device) or 0
    marks = Marks(device)
    call(pipe, known, steps or (GPU_STEPS if is_gpu else 1), marks)
    # The first step makes what the others find.
    each = marks.seconds[2:-1] or marks.seconds[1:2]
    found = Figures(
        title=known.title,
        size=f"{size}, sliced" if slice_attention else size,
        side_px=known.side_px,
        device=torch.cuda.get_device_name(device) if is_gpu else str(device),
        weights_bytes=weights,
        before_bytes=before,
        text_bytes=marks.peaks[0] - before,
        steps_bytes=max(marks.peaks[1:-1]) - before,
        vae_bytes=marks.peaks[-1] - before,
        text_s=marks.seconds[0],
        step_s=statistics.median(each),
        vae_s=marks.seconds[-1],
    )
    if is_gpu:
        found.whole_steps = known.steps
        found.whole_s = statistics.median(_whole(pipe, known, device) for _ in range(GPU_ROUNDS))
    return found


def _whole(pipe: Any, known: Architecture, device: torch.device) -> float:
    """Seconds of a picture of the usual number of steps, nothing measured within."""
    torch.cuda.synchronize(device)
    begun = time.perf_counter()
    call(pipe, known, known.steps)
    torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def why_not(known: Architecture, size: machine_size.Size) -> str | None:
    """A sentence where the machine's free memory does not suffice for the case.

    Counted: the weights, and five tensors of the VAE's widest layer, 256 channels a pixel.
    """
    if torch.cuda.is_available():
        return None
    side_px = min(known.side_px, machine_size.SWITCHES[size].vae_tile_px or known.side_px)
    needed = 4 * (known.all_parameters * 1e6 + 5 * 256 * side_px**2) + SPARE_BYTES
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    if free >= needed:
        return None
    return f"does not fit here: {needed / GIB:.1f} GiB wanted, {free / GIB:.1f} GiB are free"


def main() -> None:
    """Measure the case that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=architectures.ARCHITECTURES)
    parser.add_argument("size", choices=machine_size.SIZES)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--slice-attention", action="store_true")
    options = parser.parse_args()
    known = architectures.ARCHITECTURES[options.model]
    reason = why_not(known, options.size)
    if reason is not None:
        print(json.dumps({"why_not": reason}))
        return
    # Whatever happens to the memory: this process is the one to end, not somebody else's.
    Path("/proc/self/oom_score_adj").write_text("1000")
    print(f"{known.title} {options.size}: measuring", file=sys.stderr, flush=True)
    found = measure(known, options.size, options.steps, options.slice_attention)
    print(f"{known.title} {options.size}: {found}", file=sys.stderr, flush=True)
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
