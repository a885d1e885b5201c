"""Builds a pipeline's call arguments, except prompts, adapters, generator and callback."""

from __future__ import annotations

from typing import Any

from gpu_worker.contract.request import call_fields
from gpu_worker.pipeline.families import call_parameters, family_of
from gpu_worker.pipeline.inputs.canvas import Canvas
from gpu_worker.pipeline.inputs.context import GenerationContext
from gpu_worker.pipeline.loading.loaded_model import unsupported

_COMPUTED = ("negative_prompt", "width", "height")
"""Parameters of diffusers' calls that are not simply the request's values."""

_AS_SENT = tuple(name for name in call_fields() if name not in _COMPUTED)
"""Fields that diffusers' calls take under the same name and with the same value."""

_RESOLVED = ("num_inference_steps", "guidance_scale", "strength")
"""Fields that a record always has; without one in the request, the pipeline's default."""

_DISTILLED_STEPS = 2
"""Sana Sprint's own intermediate_timesteps are for two steps only."""


def build(context: GenerationContext, pipe: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the call's arguments, and the record's fields that follow from them.

    Raises:
        Unsupported: the family does not support the requested size.
    """
    loaded, request, canvas = context.loaded, context.request, context.canvas
    _check_own_size(context, pipe)
    parameters = call_parameters(pipe)
    values = {name: getattr(request, name) for name in _AS_SENT}
    arguments: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    for name in ("num_inference_steps", "guidance_scale"):
        default = getattr(loaded.defaults, name)
        if name in parameters and default is not None:
            arguments.setdefault(name, default)
    images = {"image": canvas.image, "mask_image": canvas.mask}
    arguments |= {name: image for name, image in images.items() if image is not None}
    sides = {"width": canvas.width, "height": canvas.height}
    arguments |= {name: side for name, side in sides.items() if name in parameters}
    if "max_area" in parameters:
        arguments["max_area"] = canvas.width * canvas.height
    arguments |= family_of(pipe).call_arguments
    steps = arguments.get("num_inference_steps", _DISTILLED_STEPS)
    if "intermediate_timesteps" in parameters and steps != _DISTILLED_STEPS:
        arguments["intermediate_timesteps"] = None
    resolved = {
        name: arguments.get(name, parameters[name].default if name in parameters else None)
        for name in _RESOLVED
    }
    if canvas.image is None:
        del resolved["strength"]
    return arguments, resolved


def _check_own_size(context: GenerationContext, pipe: Any) -> None:
    """Raise Unsupported for a size that the family would silently change."""
    own_size = family_of(pipe).own_size
    side_px = context.loaded.default_side_px()
    if own_size == "network":
        reason = "generates only at the size of its network"
    elif own_size == "area" and not _has_area(context.canvas, side_px):
        reason = f"generates only images with the area of {side_px} x {side_px} pixels"
    else:
        return
    for side in ("width", "height"):
        value = getattr(context.request, side)
        if value is not None:
            raise unsupported(side, value, pipe, reason)


def _has_area(canvas: Canvas, side_px: int) -> bool:
    """Return whether the area is within the rounding of both sides."""
    return abs(canvas.width * canvas.height / side_px**2 - 1) < 0.05
