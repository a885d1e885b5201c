"""The jobs of the matrix, by feature: what each asks for beside prompt and seed."""

from __future__ import annotations

from typing import Any

from tests.support.builders import tiny_adapters
from tests.support.pipeline_bench import PROMPT, Bench

SIDE_PX = 32
LONG = f"{PROMPT}, " * 12
WORD = f"{PROMPT} with a <cat>"


def by_feature(bench: Bench, kind: str) -> dict[str, dict[str, Any]]:
    """Return the requests for a model of this kind, `sd` or `xl`; their images lie beside it."""
    image = bench.put(tiny_adapters.drawing(SIDE_PX, SIDE_PX))
    mask = bench.put(tiny_adapters.mask(SIDE_PX, SIDE_PX))
    net = {"name": kind, "image": image}
    picture: dict[str, Any] = {"image": image, "strength": 0.9}
    masked = picture | {"mask_image": mask}
    lora, word = {"loras": [{"name": kind, "weight": 0.7}]}, {"embeddings": [kind], "prompt": WORD}
    every = {**lora, **word, "controlnets": [net], "ip_adapter": net, "vae": "other"}
    requests: dict[str, dict[str, Any]] = {
        "text": {},
        "two images": {"num_images_per_prompt": 2},
        "image to image": picture,
        "inpaint": masked,
        "lora": lora,
        "textual inversion": word,
        "weighted prompts": {
            "prompt": "a (large:1.3) red circle",
            "negative_prompt": "(blur:0.8)",
        },
        "long prompts": {"prompt": LONG},
        "weighted textual inversion": word | {"prompt": f"{PROMPT} with a (<cat>:1.2)"},
        "clip_skip": {"clip_skip": 1},
        "controlnet": {"controlnets": [net]},
        "controlnet, image to image": {"controlnets": [net], **picture},
        "ip_adapter": {"ip_adapter": net},
        "other vae": {"vae": "other"},
        **{f"hires {name}": _hires(name) for name in ("latent", "lanczos", "sharp")},
        "step log": {"step_log": True},
        "all together": every,
        "all together, inpaint, hires": every | masked | _hires("latent"),
    }
    return requests | (_with_refiner(lora, masked) if kind == "xl" else {})


def _hires(upscaler: str) -> dict[str, Any]:
    return {"hires": {"scale": 1.5, "upscaler": upscaler, "strength": 0.7}}


def _with_refiner(lora: dict[str, Any], masked: dict[str, Any]) -> dict[str, dict[str, Any]]:
    lean = {"num_inference_steps": 5, "refiner": {"name": "lean", "switch_at": 0.6}}
    return {
        "refiner": lean | {"refiner": {"name": "full", "switch_at": 0.6}},
        "refiner, lora": lean | lora,
        "refiner, inpaint": lean | masked,
        "refiner, hires": lean | _hires("latent"),
    }
