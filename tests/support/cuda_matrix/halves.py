"""float16 and bfloat16: families and jobs of every kind run to the end with finite numbers."""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from gpu_worker.pipeline.execution.machine_size import SIZES
from tests.support.builders.tiny_families import FAMILIES
from tests.support.cuda_matrix import families, interruptions, models, requests, resting_state
from tests.support.cuda_matrix.cases import GPU, Case, case, on_device, pixels, use_dtype
from tests.support.pipeline_bench import Bench

FEATURES = {
    "sd": ("all together, inpaint, hires", "weighted prompts"),
    "xl": ("all together", "image to image", "refiner, hires"),
}


def run(folder: Path) -> None:
    """Print a line for each family, and for each dtype and job of the two kinds."""
    of_families, of_kinds = folder / "families", folder / "kinds"
    models.save(of_kinds)
    for name, family in FAMILIES.items():
        family.build().save_pretrained(of_families / "models" / name)
    # Both dtypes take the same way through a family, and on most CPUs both are slow.
    use_dtype(torch.float16)
    for name, family in FAMILIES.items():
        with case(f"{torch.float16} {name}") as this:
            bench = on_device(of_families, name, "big")
            _finite(this, bench, families.request(bench, family))
    for dtype, size in ((torch.bfloat16, "little"), (torch.float16, "big")):
        use_dtype(dtype)
        for kind, features in FEATURES.items():
            bench = on_device(of_kinds, kind, size)
            wanted = requests.by_feature(bench, kind)
            for feature in features:
                with case(f"{dtype} {kind} {size} {feature}") as this:
                    _finite(this, bench, wanted[feature])
    for size in SIZES:
        with case(f"torch.float16 xl {size}: no memory in a decode in float32") as this:
            _interrupted_decode(this, on_device(of_kinds, "xl", size))


def _interrupted_decode(this: Case, bench: Bench) -> None:
    """Let memory be short while diffusers has the VAE in float32, and draw again."""
    bench.make()
    gc.collect()  # models of earlier cases, which the error below would free
    before = resting_state.read(bench.pipe, GPU)
    interruptions.out_of_memory_in_decode(this, bench, {})
    bench.ours._fits._needs.clear()  # a quarter of an hour later, the usual size is tried again
    try:
        _finite(this, bench, {})
    finally:
        this.problems += resting_state.changes(before, resting_state.read(bench.pipe, GPU))


def _finite(this: Case, bench: Bench, asked: dict[str, object]) -> None:
    """Draw; the pipeline itself checks each part's numbers, and says which were not finite."""
    images = bench.make(**asked)
    this.numbers = {"vae_dtype": images[0].metadata.get("vae_dtype")}
    if any(each.min() == each.max() for each in pixels(images)):
        this.problems.append("the image has one colour")
