"""Translates the units of the ControlNet extension, and notices other scripts that are on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.dialects.automatic1111.translation.request_models import Lenient, parse
from gateway.dialects.automatic1111.translation.target import Target, find_name
from gpu_worker.contract.field_types import LATENT

CONTROLNET = "controlnet"
MAX_UNITS = 4

_NO_MODULE = ("", "none")


class Unit(Lenient):
    """A unit of `alwayson_scripts.ControlNet.args`."""

    enabled: bool = True
    model: str = "None"
    module: str = "none"
    weight: float = 1.0
    guidance_start: float = 0.0
    guidance_end: float = 1.0


def scripts(
    alwayson: dict[str, Any], script_name: str | None, init_image: str | None, target: Target
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return our `controlnets`, and a note for each script that is on and not here.

    Args:
        init_image: the image of an img2img request, for units that have none.
    """
    units: list[dict[str, Any]] = []
    notes: list[str] = []
    for name, value in alwayson.items():
        arguments = value.get("args") if isinstance(value, dict) else None
        if not isinstance(arguments, list | tuple):
            continue
        if name.lower() == CONTROLNET:
            units += _units(arguments[:16], init_image, target, notes)
        elif is_on(arguments):
            notes.append(f"alwayson_scripts: there is no {name[:64]} here")
    if script_name and script_name.lower() != "none":
        notes.append(f"script_name: there is no script {script_name[:64]!r} here")
    if len(units) > MAX_UNITS:
        notes.append(f"alwayson_scripts.ControlNet: the first {MAX_UNITS} units are used")
    return units[:MAX_UNITS], notes


def is_on(arguments: list[Any] | tuple[Any, ...]) -> bool:
    """Return whether the arguments of a script switch it on."""
    if not arguments:
        return False
    first = arguments[0]
    if isinstance(first, dict):
        return bool(first.get("enabled", first.get("enable", True)))
    return bool(first)


def _units(
    arguments: Iterable[Any], init_image: str | None, target: Target, notes: list[str]
) -> list[dict[str, Any]]:
    units = []
    for value in arguments:
        if not isinstance(value, dict):
            continue
        unit = parse(Unit, value)
        image = _image(value) or init_image
        if not unit.enabled or image is None:
            continue
        name = find_name(unit.model, target.description.controlnets or ())
        if name is None:
            notes.append(f"ControlNet: no model has the name {unit.model[:64]!r}")
            continue
        if unit.module.lower() not in _NO_MODULE:
            notes.append(f"ControlNet: there is no preprocessor {unit.module[:64]!r} here")
        units.append(
            {
                "name": name,
                "image": image,
                "conditioning_scale": min(max(unit.weight, 0.0), 10.0),
                "guidance_start": min(max(unit.guidance_start, 0.0), 1.0),
                "guidance_end": min(max(unit.guidance_end, 0.0), 1.0),
            }
        )
    return units


def _image(unit: dict[str, Any]) -> str | None:
    """Return the base64 of a unit, from each form that the extension has had."""
    image = unit.get("image") or unit.get("input_image")
    if isinstance(image, dict):
        image = image.get("image")
    return image if isinstance(image, str) and image else None


def upscaler(name: str | None, names: Iterable[str] | None, notes: list[str]) -> str:
    """Return our name of an upscaler of a second pass; an unknown one is interpolated latents."""
    text = (name or LATENT).strip()
    if text.lower().startswith(LATENT):
        return LATENT
    if text.lower() in ("none", "lanczos", "nearest"):
        return "lanczos"
    choice = find_name(text, names or ())
    if choice is None:
        notes.append(f"hr_upscaler: no upscaler has the name {text[:64]!r}")
        return LATENT
    return choice
