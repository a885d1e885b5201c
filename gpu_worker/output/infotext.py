"""A1111's `parameters` text of a PNG, made of a result record.

Other programs read it, so its words and their order are theirs; the truth is the record itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gpu_worker.contract.field_types import LATENT, SIDE_MULTIPLE_PX

PROGRAM = "stable-diffusion-environment"

LATENT_UPSCALER = "Latent"
"""What A1111 calls interpolated latents."""

SAMPLERS = {
    "DDIMScheduler": "DDIM",
    "DDPMScheduler": "DDPM",
    "DEISMultistepScheduler": "DEIS",
    "DPMSolverSDEScheduler": "DPM++ SDE",
    "DPMSolverSinglestepScheduler": "DPM++ 2S",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "EulerDiscreteScheduler": "Euler",
    "FlowMatchEulerDiscreteScheduler": "Euler",
    "FlowMatchHeunDiscreteScheduler": "Heun",
    "HeunDiscreteScheduler": "Heun",
    "IPNDMScheduler": "IPNDM",
    "KDPM2AncestralDiscreteScheduler": "DPM2 a",
    "KDPM2DiscreteScheduler": "DPM2",
    "LCMScheduler": "LCM",
    "LMSDiscreteScheduler": "LMS",
    "PNDMScheduler": "PLMS",
    "TCDScheduler": "TCD",
    "UniPCMultistepScheduler": "UniPC",
}
"""diffusers' class to A1111's name, as diffusers' own table has it (api/schedulers/overview)."""

_SCHEDULES = (
    ("use_karras_sigmas", "Karras"),
    ("use_exponential_sigmas", "Exponential"),
    ("use_beta_sigmas", "Beta"),
)
_SPACINGS = {"linspace": "Uniform", "trailing": "SGM Uniform"}
_UNIFORM = ("Euler", "Euler a", "Heun", "LMS", "DPM2", "DPM2 a")
"""The samplers whose schedule A1111 derives from the spacing of the timesteps."""

_MARKS = re.compile(
    r"(Negative prompt|Hashes|Civitai resources|Civitai metadata)[^\S\n]*:"
    r"|^[^\S\n]*(Steps)[^\S\n]*:",
    re.MULTILINE,
)
"""What readers take for the end of a prompt: the last one at a line's start only."""

_SIZE = re.compile(r"\bSize: \d+x\d+")

_BREAKING = re.compile(r'[,:"\s]+')
"""Readers split values at these, also inside quotes."""


def parameters(record: Mapping[str, Any]) -> str:
    """Return the text of the PNG chunk `parameters`: prompts, and pairs of key and value.

    Args:
        record: a record as in docs/results-format.md; missing keys are left out.
    """
    loras = "".join(f" <lora:{lora['name']}:{lora['weight']:g}>" for lora in _list(record, "loras"))
    prompt = escape_markers(record.get("prompt") or "") + loras
    negative = escape_markers(record.get("negative_prompt") or "")
    pairs = ", ".join(f"{key}: {value}" for key, value in _pairs(record) if value is not None)
    lines = [prompt.strip(), f"Negative prompt: {negative}" if negative else "", pairs]
    return "\n".join(line for line in lines if line)


def with_size(text: str | None, width: int, height: int) -> str | None:
    """Return the text of an enlarged image, which is the text of the original with the new size.

    A text of a second pass stays unchanged, because its size is that of the first pass.
    """
    before, line, pairs = (text or "").rpartition("\n")
    if not pairs.startswith("Steps: ") or "Hires upscale: " in pairs:
        return text
    return before + line + _SIZE.sub(f"Size: {width}x{height}", pairs, count=1)


def escape_markers(prompt: str) -> str:
    """Return the prompt with a space before each colon that readers take for its end."""
    lines = prompt.replace("\r\n", "\n").replace("\r", "\n").strip()
    return _MARKS.sub(lambda match: f"{match[0].removesuffix(':').rstrip()} :", lines)


def sampler(scheduler: str, config: Mapping[str, Any]) -> str:
    """Return A1111's name of a diffusers scheduler with this configuration."""
    if scheduler == "DPMSolverMultistepScheduler":
        order = config.get("solver_order", 2)
        family = (
            "DPM" if config.get("algorithm_type") in ("dpmsolver", "sde-dpmsolver") else "DPM++"
        )
        noise = " SDE" if str(config.get("algorithm_type", "")).startswith("sde") else ""
        return f"{family} {order}M{noise}"
    plain = scheduler.removesuffix("Scheduler").removesuffix("Discrete")
    return SAMPLERS.get(scheduler, plain)


def schedule_type(name: str, config: Mapping[str, Any]) -> str | None:
    """Return A1111's name of the noise schedule; None stands for Automatic."""
    for option, schedule in _SCHEDULES:
        if config.get(option):
            return schedule
    return _SPACINGS.get(config.get("timestep_spacing", "")) if name in _UNIFORM else None


def _pairs(record: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the pairs in A1111's order (`create_infotext`). Pairs with None are left out."""
    config = record.get("scheduler_config") or {}
    name = sampler(record["scheduler"], config) if record.get("scheduler") else None
    hires = record.get("hires") or {}
    refiner = record.get("refiner") or {}
    parts = record.get("parts_sha256") or {}
    vae = record.get("vae")
    clip_skip = record.get("clip_skip")
    strength = record.get("strength", hires.get("strength"))
    return [
        ("Steps", record.get("num_inference_steps")),
        ("Sampler", name and _value(name)),
        ("Schedule type", name and schedule_type(name, config)),
        ("CFG scale", _number(record.get("guidance_scale"))),
        ("Seed", record.get("seed")),
        ("Size", _size(record, hires)),
        ("Model hash", _short(record.get("weights_sha256"))),
        ("Model", _model(record.get("model"))),
        ("VAE hash", _short(parts.get(f"vaes/{vae}"))),
        ("VAE", vae and _value(vae)),
        ("Denoising strength", _number(strength)),
        # diffusers counts the layers that are skipped, A1111 the layer that is taken: one more.
        ("Clip skip", clip_skip + 1 if clip_skip else None),
        ("RNG", str(record["rng"]).upper() if record.get("rng") else None),
        ("Eta", _number(record.get("eta"))),
        ("Refiner", _refiner(refiner.get("name"), parts)),
        ("Refiner switch at", _number(refiner.get("switch_at"))),
        ("Hires upscale", _number(hires.get("scale"))),
        ("Hires steps", hires.get("num_inference_steps")),
        ("Hires upscaler", _upscaler(hires.get("upscaler"))),
        ("Lora hashes", _lora_hashes(record)),
        ("Version", PROGRAM),
    ]


def _size(record: Mapping[str, Any], hires: Mapping[str, Any]) -> str | None:
    """Return the size of the first pass, because A1111 multiplies it by `Hires upscale`."""
    width, height = record.get("width"), record.get("height")
    if not width or not height:
        return None
    if hires:
        request = record.get("request") or {}
        width = request.get("width") or _first_side(width, hires)
        height = request.get("height") or _first_side(height, hires)
    return f"{width}x{height}"


def _first_side(side: int, hires: Mapping[str, Any]) -> int:
    scale = float(hires.get("scale", 1))
    return round(side / scale / SIDE_MULTIPLE_PX) * SIDE_MULTIPLE_PX


def _model(model: str | None) -> str | None:
    """Return a file's stem, or the last part of a directory's or hub model's name."""
    if not model:
        return None
    name = model.rstrip("/").rpartition("/")[2]
    return _value(re.sub(r"\.(safetensors|gguf)$", "", name))


def _upscaler(name: str | None) -> str | None:
    return LATENT_UPSCALER if name == LATENT else name and _value(name)


def _refiner(name: str | None, parts: Mapping[str, str]) -> str | None:
    """Return the name, with the short hash in brackets as A1111 writes it."""
    digest = _short(parts.get(f"refiners/{name}"))
    return name and _value(f"{name} [{digest}]" if digest else name)


def _lora_hashes(record: Mapping[str, Any]) -> str | None:
    """Return the only value with commas, which A1111 puts in quotes."""
    hashes = record.get("lora_hashes") or {}
    named = ", ".join(f"{_value(name)}: {digest[:12]}" for name, digest in hashes.items())
    return f'"{named}"' if named else None


def _list(record: Mapping[str, Any], key: str) -> list[Any]:
    return list(record.get(key) or [])


def _short(sha256: str | None) -> str | None:
    return sha256[:10] if sha256 else None


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


def _value(text: str) -> str:
    """Return the text without the characters at which readers split."""
    return _BREAKING.sub(lambda match: " " if match[0].isspace() else "_", text).strip()
