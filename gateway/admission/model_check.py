"""Whether a request is within what a model is described to do. Knows no HTTP.

The description: docs/http-api.md, GET /server/models. What it does not say is not checked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.errors import UnsupportedField
from gpu_worker.contract import checks, prompt_weights
from gpu_worker.contract.request import GenerationRequest

Description = dict[str, Any]

ANY_PIPELINE = frozenset(
    {
        *("prompt", "model", "seed", "num_images_per_prompt", "num_inference_steps"),
        *("width", "height", "step_log", "scheduler"),
    }
)
"""Fields that every pipeline takes, or of which something else than `takes` speaks."""

BY_MODES = frozenset({"image", "mask_image"})
"""Fields of which `modes` speaks."""

WANTED = {"txt2img": "image", "img2img": "image", "inpaint": "mask_image"}
"""The field that is told of when there is no such mode."""


def check(
    request: GenerationRequest, who: str, model: Description, schedulers: Description
) -> None:
    """Whether the model does what is asked.

    Args:
        who: what the model is called in a sentence.
        schedulers: by class name, which options one has and whether it knows eta.

    Raises:
        UnsupportedField: it does not; the text says what it does.
    """
    mode = mode_of(request)
    _check_mode(request, mode, who, model.get("modes"))
    _check_fields(request, mode, who, model)
    _check_scheduler(request, who, model, schedulers)
    _check_steps(request, mode, who, model)
    if checks.weighs_words(str(model.get("pipeline"))):
        _check_weights(request)


def mode_of(request: GenerationRequest) -> str:
    """What a request wants made, as `modes` calls it."""
    if request.image is None:
        return "txt2img"
    return "img2img" if request.mask_image is None else "inpaint"


def join_names(names: Iterable[str]) -> str:
    """Names as they stand in a sentence."""
    return ", ".join(names) or "none"


def _check_mode(request: GenerationRequest, mode: str, who: str, modes: list[str] | None) -> None:
    if modes is None or mode in modes:
        return
    field, wants = WANTED[mode], ""
    if modes == ["inpaint"]:
        field, wants = "mask_image" if mode == "img2img" else "image", ": image and mask_image"
    why = f"{who} does no {mode}, but only {join_names(modes)}{wants}"
    raise UnsupportedField(field, getattr(request, field), why)


def _check_fields(request: GenerationRequest, mode: str, who: str, model: Description) -> None:
    takes: list[str] | None = model.get("takes")
    if takes is None:
        return
    by_mode: dict[str, list[str]] = model.get("takes_by_mode") or {}
    own = by_mode.get(mode, takes)
    led = by_mode.get(f"{mode}+controlnets", own) if request.controlnets else own
    for field, info in GenerationRequest.model_fields.items():
        value = getattr(request, field)
        if field in ANY_PIPELINE | BY_MODES or value == info.get_default(call_default_factory=True):
            continue
        if field == "strength" and not by_mode:
            continue
        known = own if field == "controlnets" else led
        if field not in known:
            so = f" for {mode}" if field in takes else ""
            so += " with controlnets" if field in own and field in takes else ""
            raise UnsupportedField(
                field, value, f"{who} does not take it{so}; it takes {join_names(known)}"
            )


def _check_scheduler(
    request: GenerationRequest, who: str, model: Description, schedulers: Description
) -> None:
    names = model.get("schedulers")
    if names is not None and request.scheduler not in (None, *names):
        raise UnsupportedField(
            "scheduler", request.scheduler, f"{who} runs with {join_names(names)}"
        )
    name = _scheduler(request, model)
    about = schedulers.get(name or "")
    if about is None:
        return
    for option, value in request.scheduler_options.items():
        if option not in about["options"]:
            why = f"{who} has the scheduler {name}, which takes {join_names(about['options'])}"
            raise UnsupportedField(f"scheduler_options.{option}", value, why)
    if request.eta is not None and not about["eta"]:
        those = [each for each in names or [] if schedulers.get(each, {}).get("eta")]
        why = f"{who} has the scheduler {name}, which knows none; these do: {join_names(those)}"
        raise UnsupportedField("eta", request.eta, why)


def _check_steps(request: GenerationRequest, mode: str, who: str, model: Description) -> None:
    """Whether image to image and a second pass have a step to make."""
    name = _scheduler(request, model)
    steps = request.num_inference_steps or model.get("defaults", {}).get("num_inference_steps")
    if name is None or steps is None:
        return
    asked = request.strength
    if asked is None:
        asked = (model.get("strength") or {}).get(mode)
    passes = [("strength", asked, steps)] if request.image is not None else []
    if request.hires is not None:
        again = request.hires.num_inference_steps or steps
        passes.append(("hires.strength", request.hires.strength, again))
    for field, strength, count in passes:
        if strength is not None and checks.makes_no_step(strength, count, name):
            raise UnsupportedField(field, strength, f"{who} {checks.NO_STEP.format(steps=count)}")


def _scheduler(request: GenerationRequest, model: Description) -> str | None:
    found: str | None = request.scheduler or model.get("defaults", {}).get("scheduler")
    return found


def _check_weights(request: GenerationRequest) -> None:
    for field in ("prompt", "negative_prompt"):
        try:
            prompt_weights.parse(getattr(request, field), field)
        except prompt_weights.WeightOutOfRange as error:
            raise UnsupportedField(field, error.weight, error.why) from None
