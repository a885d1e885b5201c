"""Measures what MACHINE_SIZE's switches cost: a UNet and a VAE of Stable Diffusion 1.5's size.

Their weights are random: time and memory do not depend on them. Each case runs in a process of its
own, because a peak of memory cannot be taken back.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from gpu_worker import machine_size

MIB = 1 << 20
TEXT_TOKENS, TEXT_WIDTH = 77, 768


def build_unet() -> UNet2DConditionModel:
    """860 M parameters, as runwayml/stable-diffusion-v1-5's config.json has it."""
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=TEXT_WIDTH)


def build_vae() -> AutoencoderKL:
    """84 M parameters, from the same source."""
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,
    )


def build_pipeline(part: str, device: torch.device) -> StableDiffusionPipeline:
    """Only the measured part is there; prompts come as embeddings."""
    dtype = machine_size.choose_dtype(device)
    return StableDiffusionPipeline(
        vae=build_vae().to(dtype) if part == "vae" else None,
        unet=build_unet().to(dtype) if part == "unet" else None,
        text_encoder=None,
        tokenizer=None,
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def memory_mib(device: torch.device) -> float:
    """Peak so far: of the GPU where there is one, else resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.inference_mode()
def run_case(part: str, size: machine_size.Size, side_px: int) -> dict[str, Any]:
    """One UNet step with guidance (a batch of 2), or one VAE decoding, after a warm-up."""
    device = machine_size.choose_device("auto", 0)
    pipe = build_pipeline(part, device)
    machine_size.apply(pipe, size, device)
    dtype = machine_size.choose_dtype(device)
    side = side_px // 8
    if part == "unet":
        latents = torch.randn(2, 4, side, side, dtype=dtype, device=device)
        text = torch.randn(2, TEXT_TOKENS, TEXT_WIDTH, dtype=dtype, device=device)
        call = lambda: pipe.unet(latents, 500, text)  # noqa: E731
    else:
        latents = torch.randn(1, 4, side, side, dtype=dtype, device=device)
        call = lambda: pipe.vae.decode(latents)  # noqa: E731
    before = memory_mib(device)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return {
        "seconds": min(seconds),
        "weights_mib": before,
        "added_mib": memory_mib(device) - before,
        "device": str(device),
    }


def in_a_process(part: str, size: str, side_px: int) -> dict[str, Any]:
    """The case's figures, measured by a fresh interpreter."""
    command = [sys.executable, "-m", "bench.machine_size", "--case", part, size, str(side_px)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Measure every size, print a table of ratios to `big`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs=3, metavar=("PART", "SIZE", "SIDE"), help="one, as JSON")
    parser.add_argument("--unet-side", type=int, default=512)
    parser.add_argument("--vae-side", type=int, default=768)
    options = parser.parse_args()
    if options.case:
        part, size, side = options.case
        print(json.dumps(run_case(part, size, int(side))))
        return
    print(f"{'part':5s} {'px':>5s} {'size':7s} {'s':>8s} {'ratio':>6s} {'MiB above weights':>18s}")
    for part, side in (("unet", options.unet_side), ("vae", options.vae_side)):
        first = None
        for size in machine_size.SIZES:
            found = in_a_process(part, size, side)
            first = first or found["seconds"]
            ratio = found["seconds"] / first
            print(
                f"{part:5s} {side:5d} {size:7s} {found['seconds']:8.2f} {ratio:6.2f} "
                f"{found['added_mib']:18.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
