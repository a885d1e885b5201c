"""The arguments of a pipeline's call, but prompts, adapters, generator and callback."""

from __future__ import annotations

from typing import Any

from gpu_worker.pipeline.families import call_parameters, family_of
from gpu_worker.pipeline.loading.loaded_model import unsupported
from gpu_worker.pipeline.sampling.canvas import Canvas
from gpu_worker.pipeline.sampling.context import GenerationContext

_AS_SENT = (
    "num_inference_steps",
    "guidance_scale",
    "clip_skip",
    "eta",
    "guidance_rescale",
    "strength",
)
"""Fields that diffusers' calls take under the same name and with the same value."""

_RESOLVED = ("num_inference_steps", "guidance_scale", "strength")
"""Fields whose value a record has even when the request did not set it: the pipeline's own."""

_DISTILLED_STEPS = 2
"""Sana Sprint's own intermediate_timesteps are for two steps alone."""


def build(context: GenerationContext, pipe: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The call's arguments; and the fields of the record that follow from them.

    Raises:
        Unsupported: the family does not draw the size that is asked for.
    """
    loaded, request, canvas = context.loaded, context.request, context.canvas
    _check_own_size(context, pipe)
    known = call_parameters(pipe)
    values = {name: getattr(request, name) for name in _AS_SENT}
    arguments: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    for name in ("num_inference_steps", "guidance_scale"):
        default = getattr(loaded.defaults, name)
        if name in known and default is not None:
            arguments.setdefault(name, default)
    images = {"image": canvas.image, "mask_image": canvas.mask}
    arguments |= {name: image for name, image in images.items() if image is not None}
    sides = {"width": canvas.width, "height": canvas.height}
    arguments |= {name: side for name, side in sides.items() if name in known}
    if "max_area" in known:
        arguments["max_area"] = canvas.width * canvas.height
    arguments |= family_of(pipe).call_arguments
    steps = arguments.get("num_inference_steps", _DISTILLED_STEPS)
    if "intermediate_timesteps" in known and steps != _DISTILLED_STEPS:
        arguments["intermediate_timesteps"] = None
    resolved = {
        name: arguments.get(name, known[name].default if name in known else None)
        for name in _RESOLVED
    }
    if canvas.image is None:
        del resolved["strength"]
    return arguments, resolved


def _check_own_size(context: GenerationContext, pipe: Any) -> None:
    """Some families change the size without a word: to their network's, or to an area of theirs."""
    own_size = family_of(pipe).own_size
    side_px = context.loaded.default_side_px()
    if own_size == "network":
        reason = "draws at the size of its network alone"
    elif own_size == "area" and not _has_area(context.canvas, side_px):
        reason = f"draws images of the area of {side_px} pixels squared alone"
    else:
        return
    for side in ("width", "height"):
        value = getattr(context.request, side)
        if value is not None:
            raise unsupported(side, value, pipe, reason)


def _has_area(canvas: Canvas, side_px: int) -> bool:
    """Whether the area is within what rounding both sides makes of it."""
    return abs(canvas.width * canvas.height / side_px**2 - 1) < 0.05
