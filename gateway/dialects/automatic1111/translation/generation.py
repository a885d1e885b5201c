"""Translates txt2img and img2img into a request of the service, with notes on what is left out."""

from __future__ import annotations

import re
from typing import Any

from gateway.dialects.automatic1111.translation import prompt_text, sampler_table
from gateway.dialects.automatic1111.translation.controlnet_units import scripts, upscaler
from gateway.dialects.automatic1111.translation.request_models import (
    OVERRIDES,
    Generation,
    Img2Img,
    Txt2Img,
)
from gateway.dialects.automatic1111.translation.target import (
    Target,
    drop_unsupported,
    find_name,
)
from gpu_worker.contract.field_types import DEFAULT_STEPS, MAX_IMAGES, SIDE_MULTIPLE_PX

Body = dict[str, Any]

NO_PROMPT = ","
"""Stands for an empty prompt, which the service does not take."""

DENOISING = 0.75
"""A1111's default of `denoising_strength`."""

_SWITCHED_OFF = ("", "none", "automatic")
_MAX_LORAS, _MAX_CLIP_SKIP, _MAX_EMBEDDINGS = 8, 11, 8


def target_of(request: Generation, target: Target, notes: list[str]) -> Target:
    """Return the model that a request names, else that of the door."""
    target = target.with_model(request.model, "model", notes)
    override = request.override_settings.get("sd_model_checkpoint")
    return target.with_model(override, "sd_model_checkpoint", notes)


def txt2img(request: Txt2Img, target: Target, notes: list[str]) -> Body:
    """Return the request as JSON of POST /image/generate, with base64 images."""
    body = _common(request, target, None, notes)
    body |= _size(request)
    if request.enable_hr:
        _add_hires(request, body, target, notes)
    drop_unsupported(body, target, notes)
    return body


def img2img(
    request: Img2Img, target: Target, image: str, mask: str | None, notes: list[str]
) -> Body:
    """Return the request as txt2img() does.

    Args:
        image: base64 of the prepared image, whose size is that of the result.
        mask: base64 of the prepared mask, or None.
    """
    body = _common(request, target, image, notes)
    body["image"] = image
    if mask is not None:
        body["mask_image"] = mask
    strength = DENOISING if request.denoising_strength is None else request.denoising_strength
    body["strength"] = _strength(strength, body.get("num_inference_steps"), target)
    if request.initial_noise_multiplier not in (None, 1.0):
        notes.append("initial_noise_multiplier: the noise is not multiplied here")
    drop_unsupported(body, target, notes)
    return body


def _common(request: Generation, target: Target, init_image: str | None, notes: list[str]) -> Body:
    body: Body = {} if target.name is None else {"model": target.name}
    if request.steps is not None:
        body["num_inference_steps"] = request.steps
    if request.cfg_scale is not None:
        body["guidance_scale"] = request.cfg_scale
    if request.seed >= 0:
        body["seed"] = request.seed
    _add_count(request, body, notes)
    _add_prompts(request, body, target, notes)
    _add_sampler(request, body, target, notes)
    _add_settings(request, body, target, notes)
    units, script_notes = scripts(request.alwayson_scripts, request.script_name, init_image, target)
    if units:
        body["controlnets"] = units
    notes += script_notes
    notes += _left_out(request)
    return body


def _size(request: Generation) -> Body:
    """Return the sides, floored to multiples of 8."""
    sides = {"width": request.width, "height": request.height}
    return {
        name: value // SIDE_MULTIPLE_PX * SIDE_MULTIPLE_PX
        for name, value in sides.items()
        if value is not None
    }


def _add_count(request: Generation, body: Body, notes: list[str]) -> None:
    count = max(1, request.batch_size) * max(1, request.n_iter)
    if count > MAX_IMAGES:
        notes.append(f"batch_size: {count} images are more than one job makes; it is {MAX_IMAGES}")
    if count > 1:
        body["num_images_per_prompt"] = min(count, MAX_IMAGES)


def _add_prompts(request: Generation, body: Body, target: Target, notes: list[str]) -> None:
    weighted = target.model is None or bool(target.model.weighted_prompts)
    loras: dict[str, float] = {}
    for field, text in (
        ("prompt", request.prompt),
        ("negative_prompt", request.negative_prompt),
    ):
        parts = prompt_text.read(text, weighted=weighted)
        notes += [f"{field}: {note}" for note in parts.notes]
        if field == "prompt" and not parts.text:
            notes.append(f"prompt: is empty, and {NO_PROMPT!r} stands for it")
            parts.text = NO_PROMPT
        if parts.text:
            body[field] = parts.text
        loras |= parts.loras if field == "prompt" else {}
    _add_loras(loras, body, target, notes)
    _add_embeddings(body, target, notes)


def _add_loras(loras: dict[str, float], body: Body, target: Target, notes: list[str]) -> None:
    names = target.description.loras
    chosen: dict[str, float] = {}
    for text, weight in loras.items():
        name = find_name(text, names or ())
        if name is None:
            notes.append(f"prompt: no LoRA has the name {text[:64]!r}")
        else:
            chosen[name] = min(max(weight, -10.0), 10.0)
    if len(chosen) > _MAX_LORAS:
        notes.append(f"prompt: the first {_MAX_LORAS} LoRAs are used")
    if chosen:
        pairs = list(chosen.items())[:_MAX_LORAS]
        body["loras"] = [{"name": name, "weight": weight} for name, weight in pairs]


def _add_embeddings(body: Body, target: Target, notes: list[str]) -> None:
    """Add the embeddings whose word is in a prompt, as A1111 finds them."""
    text = f"{body['prompt']} {body.get('negative_prompt', '')}"
    names = [
        name
        for name, each in target.description.embedding_words.items()
        if re.search(rf"(?<!\w){re.escape(each.word)}(?!\w)", text)
    ]
    if names:
        body["embeddings"] = names[:_MAX_EMBEDDINGS]


def _add_sampler(request: Generation, body: Body, target: Target, notes: list[str]) -> None:
    """Raises UnknownSampler."""
    name = request.sampler_name if request.sampler_name is not None else request.sampler_index
    sampler, schedule = sampler_table.resolve(name, request.scheduler)
    if request.scheduler and not sampler_table.is_schedule(request.scheduler):
        notes.append(f"scheduler: no schedule type has the name {request.scheduler[:64]!r}")
    body |= sampler_table.native_fields(sampler, schedule, target.model, target.description, notes)
    if request.eta is None:
        return
    scheduler = target.description.schedulers.get(
        body.get("scheduler") or target.default("scheduler") or ""
    )
    if scheduler is not None and scheduler.eta:
        body["eta"] = min(max(request.eta, 0.0), 1.0)
    elif request.eta not in (0.0, 1.0):
        notes.append("eta: the sampler does not take it")


def _add_settings(request: Generation, body: Body, target: Target, notes: list[str]) -> None:
    settings = request.override_settings
    layers = settings.get("CLIP_stop_at_last_layers", request.clip_skip)
    if isinstance(layers, str) and layers.strip().isdecimal():
        layers = int(layers)
    if isinstance(layers, int | float) and layers > 1:
        # A1111 counts the layer that is taken, diffusers those that are skipped: one less.
        body["clip_skip"] = min(int(layers) - 1, _MAX_CLIP_SKIP)
    vae = settings.get("sd_vae")
    if isinstance(vae, str) and vae.strip().lower() not in _SWITCHED_OFF:
        name = find_name(vae, target.description.vaes or ())
        if name is None:
            notes.append(f"sd_vae: no VAE has the name {vae[:64]!r}")
        else:
            body["vae"] = name
    for name in settings:
        if name not in OVERRIDES and settings[name] not in (None, "", [], False):
            notes.append(f"override_settings: {name[:64]} has no effect here")
    _add_refiner(request, body, target, notes)


def _add_refiner(request: Generation, body: Body, target: Target, notes: list[str]) -> None:
    text = request.refiner_checkpoint or ""
    if text.strip().lower() in _SWITCHED_OFF:
        return
    name = find_name(text, target.description.refiners or ())
    switch_at = 0.8 if request.refiner_switch_at is None else request.refiner_switch_at
    if name is None:
        notes.append(f"refiner_checkpoint: no refiner has the name {text[:64]!r}")
    elif 0.0 < switch_at < 1.0:
        body["refiner"] = {"name": name, "switch_at": switch_at}


def _left_out(request: Generation) -> list[str]:
    """Return a note for each further field that asks for something that is not here."""
    asks = {
        "styles: there are no styles here": bool(request.styles),
        "restore_faces: faces are not restored here": request.restore_faces,
        "tiling: images are not tiled here": request.tiling,
        "subseed_strength: seeds are not mixed here": request.subseed_strength > 0,
        "seed_resize_from_w: noise is not resized here": (
            request.subseed_strength > 0
            and request.seed_resize_from_w > 0
            and request.seed_resize_from_h > 0
        ),
        "infotext: it is not read here; send its fields": bool(request.infotext),
    }
    return [note for note, asked_for in asks.items() if asked_for]


def _add_hires(request: Txt2Img, body: Body, target: Target, notes: list[str]) -> None:
    scale = _hires_scale(request, body, notes)
    if scale <= 1.0:
        notes.append("enable_hr: the second pass is not larger than the first, so there is none")
        return
    strength = DENOISING if request.denoising_strength is None else request.denoising_strength
    steps = request.hr_second_pass_steps if request.hr_second_pass_steps > 0 else None
    body["hires"] = {
        "scale": scale,
        "upscaler": upscaler(request.hr_upscaler, target.description.upscalers, notes),
        "strength": _strength(strength, steps or body.get("num_inference_steps"), target),
    }
    if steps is not None:
        body["hires"]["num_inference_steps"] = steps
    for field in ("hr_prompt", "hr_negative_prompt", "hr_checkpoint_name"):
        text = (getattr(request, field) or "").strip()
        if text and text.lower() != "use same checkpoint":
            notes.append(f"{field}: the second pass has the prompts and the model of the first")
    for field, first in (("hr_sampler_name", "sampler_name"), ("hr_scheduler", "scheduler")):
        text = getattr(request, field) or ""
        other = text.lower() not in (*_SWITCHED_OFF, (getattr(request, first) or "").lower())
        if other and not text.lower().startswith("use same"):
            notes.append(f"{field}: the second pass has the sampler of the first")


def _hires_scale(request: Txt2Img, body: Body, notes: list[str]) -> float:
    """Return the factor of `hr_scale`, or that of `hr_resize_x` and `hr_resize_y`."""
    sides = (("width", request.hr_resize_x), ("height", request.hr_resize_y))
    factors: list[float] = [
        side / body[name] for name, side in sides if side > 0 and body.get(name, 0) > 0
    ]
    if not factors:
        return request.hr_scale
    if len(set(factors)) > 1:
        notes.append("hr_resize_x: the image keeps its form and is at least as large as requested")
    return max(factors)


def _strength(strength: float, steps: int | None, target: Target) -> float:
    """Return a strength that makes at least one step, as A1111 always makes one."""
    count = steps or target.default("num_inference_steps") or DEFAULT_STEPS
    least = 1.0 / count + 1e-6 if count >= 1 else 1.0
    return min(1.0, max(strength, least))
