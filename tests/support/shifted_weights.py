"""Draws from the same weights at other addresses.

Used as `python -m tests.support.shifted_weights FOLDER SHIFT...`.

For each SHIFT, every .safetensors file begins its weights so many bytes after a multiple of 64.
What is drawn goes to stdout as JSON: by shift and by what was asked, a digest of the image.
`mapped` is diffusers' own image, from weights where the mapped file has them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import diffusers
import torch

from tests.support.builders import tiny_adapters, tiny_dits, tiny_files, tiny_models, tiny_upscalers
from tests.support.pipeline_bench import PROMPT, Bench, write_library

ONE_ROW = {"guidance_scale": 1.0}
"""Without guidance the network reads one row at a time: MKL's code for that is the pickiest."""


def build(folder: Path) -> None:
    """One model of each route, and one of each thing that a job may add."""
    models = folder / "models"
    small, xl, flux = tiny_models.build(), tiny_adapters.build_xl(), tiny_dits.flux()
    small.save_pretrained(models / "sd")
    xl.save_pretrained(models / "xl")
    tiny_models.save_single_file(small, models / "one.safetensors")
    tiny_files.transformer(flux, models / "flux.safetensors")
    tiny_files.gguf_transformer(flux, models / "bits.gguf", alignment=8)
    tiny_adapters.build_refiner().save_pretrained(models / "refiner")
    tiny_adapters.save_lora(xl, models / "lora.safetensors", text=True)
    tiny_adapters.save_xl_embedding(models / "cat.safetensors")
    tiny_adapters.save_controlnet(xl, models / "net")
    tiny_adapters.save_vae(models / "vae")
    tiny_adapters.save_ip_adapter(xl, models / "ip")
    tiny_upscalers.esrgan(models / "sharp.safetensors")
    write_library(
        folder,
        models={name: {"source": name} for name in ("one.safetensors", "flux.safetensors")}
        | {"bits.gguf": {"source": "bits.gguf"}, "sd": {"source": "sd"}},
        refiners={"refiner": {"source": "refiner"}},
        loras={"lora": {"source": "lora.safetensors"}},
        embeddings={"cat": {"source": "cat.safetensors", "token": "<cat>"}},
        controlnets={"net": {"source": "net"}},
        vaes={"vae": {"source": "vae"}},
        ip_adapters={"ip": {"source": "ip/adapter.safetensors"}},
        upscalers={"sharp": {"source": "sharp.safetensors"}},
    )


def shift(file: Path, by: int) -> None:
    """Spaces after the header, which the format allows: the weights begin so many bytes after a
    multiple of 64."""
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].rstrip()
    header += b" " * ((by - 8 - len(header)) % 64)
    file.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])


def drawn(bench: Bench, **asked: Any) -> str:
    """Digest of the image, and of the latents of each step: rounding to 256 levels hides much."""
    (made,) = bench.make(**ONE_ROW | asked, step_log=True)
    log = [row["latents_sha256"] for row in made.metadata["steps_log"]]
    return hashlib.sha256(json.dumps(log).encode() + made.image.tobytes()).hexdigest()


def asks(bench: Bench) -> dict[str, dict[str, Any]]:
    """What is asked of the model in turn, by its name here; the last one finds nothing left."""
    picture = bench.put(tiny_adapters.drawing())
    refiner = {"name": "refiner", "switch_at": 0.5}
    return {
        "plain": {},
        "lora": {"loras": [{"name": "lora"}]},
        "embedding": {"embeddings": ["cat"], "prompt": f"{PROMPT} <cat>"},
        "controlnet": {"controlnets": [{"name": "net", "image": picture}]},
        "vae": {"vae": "vae"},
        "ip_adapter": {"ip_adapter": {"name": "ip", "image": picture}},
        "refiner": {"refiner": refiner, "num_inference_steps": 4},
        "hires": {"hires": {"scale": 1.5, "upscaler": "sharp", "strength": 0.9}},
        "again": {},
        "one.safetensors": {"model": "one.safetensors"},
        "flux.safetensors": {"model": "flux.safetensors"},
        "bits.gguf": {"model": "bits.gguf"},
        "sd": {"model": "sd"},
    }


def everything(folder: Path) -> dict[str, str]:
    """By what was asked, and once more with offload's hooks, which move what they find."""
    bench = Bench(folder, "xl")
    made = {name: drawn(bench, **asked) for name, asked in asks(bench).items()}
    hooked = Bench(folder, "xl")
    hooked.pipe.enable_model_cpu_offload(device="cpu")
    return made | {
        f"hooked {name}": drawn(hooked, **asked)
        for name, asked in asks(hooked).items()
        if name in ("plain", "lora", "refiner", "again")
    }


def mapped(folder: Path) -> str:
    """Of diffusers alone."""
    pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(folder / "models" / "xl")
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(7)
    latents = pipe(
        PROMPT, num_inference_steps=2, generator=generator, output_type="latent", **ONE_ROW
    ).images
    return hashlib.sha256(latents.numpy().tobytes()).hexdigest()


def main(folder: Path, shifts: list[int]) -> None:
    warnings.simplefilter("ignore")
    build(folder / "built")
    found = {}
    for by in shifts:
        data = folder / f"shifted-{by}"
        shutil.copytree(folder / "built", data)
        for file in data.rglob("*.safetensors"):
            shift(file, by)
        found[by] = everything(data) | {"mapped": mapped(data)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(each) for each in sys.argv[2:]])
