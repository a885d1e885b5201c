"""Draws with quantised weights in a process of its own, as a worker does: `python -m
tests.support.quantized_images SETTING FOLDER`. The libraries are imported at its start or never.

Pictures go to FOLDER/SETTING/, what else there is to say to stdout, as JSON.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import weakref
from pathlib import Path
from typing import Any

from gpu_worker import quantization_libraries
from gpu_worker.store import log_format

LIBRARIES = ("bitsandbytes", "torchao", "optimum.quanto")
MODELS = ("sd", "xl", "flux", "sd3")


def asks(put: Any) -> dict[str, dict[str, Any]]:
    """What is asked of the first model, by the picture's name; `put` stores a picture."""
    from PIL import Image

    ramp = Image.linear_gradient("L").resize((64, 64))
    picture, mask = (
        put(each) for each in (ramp.convert("RGB"), ramp.point(lambda x: x // 128 * 255))
    )
    return {
        "plain": {},
        "lora": {"loras": [{"name": "x", "weight": 1.0}]},
        "image": {"image": picture, "strength": 0.6, "num_inference_steps": 4},
        "mask": {"image": picture, "mask_image": mask, "strength": 0.9, "num_inference_steps": 4},
        "net": {"controlnets": [{"name": "x", "image": picture}]},
    }


def weight_bytes(part: Any) -> tuple[int, int]:
    """Of its linear layers' weights, and of all that it holds."""
    import torch

    def size(weights: torch.Tensor) -> int:
        if hasattr(weights, "__tensor_flatten__"):
            return sum(size(getattr(weights, name)) for name in weights.__tensor_flatten__()[0])
        return weights.numel() * weights.element_size()

    linear = [each for each in part.modules() if isinstance(each, torch.nn.Linear)]
    everything = [*part.parameters(), *part.buffers()]
    return sum(size(each.weight) for each in linear), sum(size(each) for each in everything)


def denoiser(pipe: Any) -> Any:
    return getattr(pipe, "unet", None) or pipe.transformer


def drawn(folder: Path, setting: str) -> dict[str, Any]:
    """All pictures of all models with one setting of SDE_QUANTIZATION."""
    from gpu_worker.pipeline.execution import offload
    from tests.support.pipeline_bench import Bench

    pictures = folder / setting
    pictures.mkdir()
    said: dict[str, Any] = {"bytes": {}}
    for model in MODELS[1:]:
        bench = Bench(folder, model, SDE_QUANTIZATION=setting)
        bench.make(width=64, height=64)[0].image.save(pictures / f"{model}.png")
        said["bytes"][model] = weight_bytes(denoiser(bench.pipe))
    bench = Bench(folder, MODELS[0], SDE_QUANTIZATION=setting)
    said["estimated bytes"] = offload.weight_bytes(bench.pipe.unet)
    said["bytes"][MODELS[0]] = weight_bytes(bench.pipe.unet)
    for name, asked in asks(bench.put).items():
        (made,) = bench.make(**asked)
        made.image.save(pictures / f"{name}.png")
        said.setdefault("metadata", made.metadata)
    return said | around(bench)


def refused(folder: Path, setting: str) -> str:
    """What is said of a single file."""
    from gpu_worker.assets.model_library import ModelsError
    from tests.support.pipeline_bench import Bench

    try:
        Bench(folder, "one.safetensors", SDE_QUANTIZATION=setting)
    except ModelsError as error:
        return str(error)
    raise AssertionError("it was loaded")


def around(bench: Any) -> dict[str, Any]:
    """What must not change the picture, and what must let the weights go."""
    import torch

    from gpu_worker.pipeline.execution import machine_size, offload

    pipe, first = bench.pipe, bench.pixels()
    pipe.enable_model_cpu_offload(device="cpu")
    said = {"same under offload": bench.pixels() == first, "offload": {}}
    pipe.remove_all_hooks()
    for size in machine_size.SIZES:
        said["offload"][size] = machine_size.offload_for(pipe, size, torch.device("cuda"))
    if said["offload"]["tiny"] == "layers":
        offload.enable(pipe, "layers", torch.device("cpu"))
        said["same under offload"] = said["same under offload"] and bench.pixels() == first
        offload.disable(pipe)
    said["same afterwards"] = bench.pixels() == first
    unet = weakref.ref(pipe.unet)
    del pipe
    gc.unfreeze()
    bench.ours.unload()
    return said | {"gone": unet() is None}


if __name__ == "__main__":
    log_format.configure("text", os.environ)
    quantization_libraries.hide_unused(sys.argv[1])  # type: ignore[arg-type]
    found = drawn(Path(sys.argv[2]), sys.argv[1])
    found["refused"] = refused(Path(sys.argv[2]), sys.argv[1])
    found["imported"] = [name for name in LIBRARIES if sys.modules.get(name) is not None]
    json.dump(found, sys.stdout)
