"""Saves the tiny models of the matrix, with all that a job may add to them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.support.builders import tiny_adapters, tiny_models, tiny_upscalers
from tests.support.pipeline_bench import write_library


def save(folder: Path) -> None:
    """Fill `folder/models`: `sd` and `xl`, their adapters of the same names, and two refiners."""
    models = folder / "models"
    sd, xl = tiny_models.build(), tiny_adapters.build_xl()
    for name, pipe in (("sd", sd), ("xl", xl)):
        pipe.save_pretrained(models / name)
        (models / "loras").mkdir(exist_ok=True)
        tiny_adapters.save_lora(pipe, models / "loras" / f"{name}.safetensors", text=True)
        tiny_adapters.save_controlnet(pipe, models / "nets" / name)
        tiny_adapters.save_ip_adapter(pipe, models / f"ip-{name}")
    tiny_adapters.save_embedding(models / "word-sd.safetensors")
    tiny_adapters.save_xl_embedding(models / "word-xl.safetensors")
    tiny_adapters.save_vae(models / "vae")
    tiny_upscalers.esrgan(models / "sharp.safetensors")
    refiner = tiny_adapters.build_refiner()
    for name in ("full", "lean"):
        refiner.save_pretrained(models / name)
    for shared in ("text_encoder_2", "tokenizer_2", "vae"):
        shutil.rmtree(models / "lean" / shared)
    write_library(folder, **_library())


def _library() -> dict[str, dict[str, dict[str, Any]]]:
    kinds = ("sd", "xl")
    return {
        "loras": {kind: {"source": f"loras/{kind}.safetensors"} for kind in kinds},
        "controlnets": {kind: {"source": f"nets/{kind}"} for kind in kinds},
        "ip_adapters": {kind: {"source": f"ip-{kind}/adapter.safetensors"} for kind in kinds},
        "embeddings": {
            kind: {"source": f"word-{kind}.safetensors", "token": "<cat>"} for kind in kinds
        },
        "vaes": {"other": {"source": "vae"}},
        "upscalers": {"sharp": {"source": "sharp.safetensors"}},
        "refiners": {name: {"source": name} for name in ("full", "lean")},
    }
