"""Checks a request against what a worker describes: each rule once, for both processes.

The gateway runs the rules on the worker's description before it accepts a job. The worker runs them
again on the description of the loaded model. What a description leaves out is not checked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from gpu_worker.contract import prompt_weights
from gpu_worker.contract.capabilities import (
    WITH_CONTROLNETS,
    Capabilities,
    ModelCapabilities,
    SchedulerCapabilities,
)
from gpu_worker.contract.field_types import LATENT
from gpu_worker.contract.fields.request_walk import assets_of
from gpu_worker.contract.request import GenerationRequest, is_default, metadata_of
from gpu_worker.contract.validation_errors import Unsupported

Mode = Literal["txt2img", "img2img", "inpaint"]

FLOW = "FlowMatch"
"""The prefix of diffusers' classes for schedulers of flow matching."""

_FIELD_OF_MODE: dict[Mode, str] = {
    "txt2img": "image",
    "img2img": "image",
    "inpaint": "mask_image",
}
"""The field that an error names when a model lacks the mode."""

_NO_STEP = "makes strength times num_inference_steps ({steps}) steps, which is less than one"


def check(request: GenerationRequest, capabilities: Capabilities) -> None:
    """Check a request against everything that one worker can do.

    Raises:
        Unsupported: the worker cannot do it; the text says what it can.
    """
    _check_assets(request, capabilities)
    name = request.model or capabilities.default or ""
    models = capabilities.models
    if request.model is not None and models and name not in models:
        raise Unsupported(
            "model", name, f"no model has this name; the models are: {join_names(models)}"
        )
    if name in models and request.upscale is None:  # no model is needed to upscale
        check_model(request, name, models[name], capabilities.schedulers)


def check_model(
    request: GenerationRequest,
    name: str,
    model: ModelCapabilities,
    schedulers: dict[str, SchedulerCapabilities],
) -> None:
    """Check a request against one model.

    Args:
        name: the model's name, for the message.
        schedulers: by class name, those that models list.

    Raises:
        Unsupported: the model cannot do it; the text says what it can.
    """
    if model.error is not None:
        raise Unsupported("model", name, f"it cannot be loaded: {model.error}")
    subject = f"the model {name} ({model.pipeline or 'pipeline'})"
    mode = mode_of(request)
    _check_mode(request, mode, subject, model)
    _check_fields(request, mode, subject, model)
    _check_scheduler(request, subject, model, schedulers)
    _check_steps(request, mode, subject, model)
    if model.weighted_prompts:
        for field in ("prompt", "negative_prompt"):
            prompt_weights.parse(getattr(request, field), field)


def mode_of(request: GenerationRequest) -> Mode:
    """Return the mode that a request's images ask for."""
    if request.image is None:
        return "txt2img"
    return "img2img" if request.mask_image is None else "inpaint"


def makes_no_step(strength: float, steps: int, scheduler: str) -> bool:
    """Return whether image to image has no step to make.

    diffusers' `get_timesteps` makes `strength` times `steps` of them, rounded down; schedulers of
    flow matching round up.

    Args:
        scheduler: the name of its class.
    """
    least = 0.0 if scheduler.startswith(FLOW) else 1.0
    return strength == 0 or strength * steps < least


def no_step(field: str, strength: float, steps: int, subject: str) -> Unsupported:
    """Return the refusal of a strength that leaves no step."""
    return Unsupported(field, strength, f"{subject} {_NO_STEP.format(steps=steps)}")


def join_names(names: Iterable[str]) -> str:
    """Return names as a list in a sentence."""
    return ", ".join(names) or "none"


def _check_assets(request: GenerationRequest, capabilities: Capabilities) -> None:
    """Check names of models.toml against the list of their kind."""
    for kind, field, name in assets_of(request):
        names = getattr(capabilities, kind)
        if names is None or kind == "models":
            continue
        if kind == "upscalers":
            others = [each for each in names if each != LATENT]
            names = [LATENT, *others] if field.startswith("hires") else others
        if name in names:
            continue
        broken = capabilities.errors.get(kind, {}).get(name)
        if broken is not None:
            raise Unsupported(field, name, f"it cannot be used: {broken}")
        raise Unsupported(
            field, name, f"none of the {kind} has this name; the names are: {join_names(names)}"
        )


def _check_mode(
    request: GenerationRequest, mode: Mode, subject: str, model: ModelCapabilities
) -> None:
    modes = model.modes
    if modes is None or mode in modes:
        return
    field, wants = _FIELD_OF_MODE[mode], ""
    if modes == ["inpaint"]:
        field, wants = "mask_image" if mode == "img2img" else "image", ": image and mask_image"
    reason = f"{subject} does not support {mode}; it supports {join_names(modes)}{wants}"
    raise Unsupported(field, getattr(request, field), reason)


def _check_fields(
    request: GenerationRequest, mode: Mode, subject: str, model: ModelCapabilities
) -> None:
    takes = model.takes
    if takes is None:
        return
    by_mode = model.takes_by_mode or {}
    without = by_mode.get(mode, takes)
    supported = by_mode.get(mode + WITH_CONTROLNETS, without) if request.controlnets else without
    for field in GenerationRequest.model_fields:
        metadata = metadata_of(field)
        if metadata.any_pipeline or metadata.image or is_default(request, field):
            continue
        if field == "strength" and not by_mode:
            continue
        names = without if field == "controlnets" else supported
        if field not in names:
            condition = f" for {mode}" if field in takes else ""
            condition += " with controlnets" if field in without and field in takes else ""
            reason = f"{subject} does not take it{condition}; it takes {join_names(names)}"
            raise Unsupported(field, getattr(request, field), reason)


def _check_scheduler(
    request: GenerationRequest,
    subject: str,
    model: ModelCapabilities,
    schedulers: dict[str, SchedulerCapabilities],
) -> None:
    names = model.schedulers
    if names is not None and request.scheduler not in (None, *names):
        raise Unsupported(
            "scheduler", request.scheduler, f"{subject} runs with {join_names(names)}"
        )
    name = request.scheduler or model.default("scheduler") or ""
    scheduler = schedulers.get(name)
    if scheduler is None:
        return
    for option, value in request.scheduler_options.items():
        if option not in scheduler.options:
            options = join_names(scheduler.options)
            reason = f"{subject} has the scheduler {name}, which takes {options}"
            raise Unsupported(f"scheduler_options.{option}", value, reason)
    if request.eta is not None and not scheduler.eta:
        others = [each for each in names or [] if each in schedulers and schedulers[each].eta]
        reason = f"{subject} has the scheduler {name}, which does not take it; these do: "
        raise Unsupported("eta", request.eta, reason + join_names(others))


def _default_strength(
    request: GenerationRequest, mode: Mode, model: ModelCapabilities
) -> float | None:
    values = model.strength or {}
    value = values.get(mode + WITH_CONTROLNETS) if request.controlnets else None
    return values.get(mode) if value is None else value


def _check_steps(
    request: GenerationRequest, mode: Mode, subject: str, model: ModelCapabilities
) -> None:
    """Check that image to image and a second pass have a step to make."""
    scheduler = request.scheduler or model.default("scheduler")
    steps = request.num_inference_steps or model.default("num_inference_steps")
    if scheduler is None or steps is None:
        return
    passes: list[tuple[str, float | None, int]] = []
    if request.image is not None:
        strength = request.strength
        if strength is None:
            strength = _default_strength(request, mode, model)
        passes.append(("strength", strength, steps))
    if request.hires is not None:
        second_steps = request.hires.num_inference_steps or steps
        passes.append(("hires.strength", request.hires.strength, second_steps))
    for field, strength, count in passes:
        if strength is not None and makes_no_step(strength, count, scheduler):
            raise no_step(field, strength, count, subject)
