"""What stands behind the options of `sde generate`: text in, values of a request out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer


def size(text: str) -> tuple[int, int]:
    """`512x768` as (width, height) in pixels. Raises typer.BadParameter."""
    width, cross, height = text.lower().partition("x")
    if not (
        cross and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()
    ):
        raise typer.BadParameter(f"{text!r} is not WIDTHxHEIGHT, such as 512x512")
    return int(width), int(height)


def lora(text: str) -> dict[str, Any]:
    """`NAME` or `NAME:WEIGHT`. Raises typer.BadParameter."""
    name, colon, weight = text.partition(":")
    return {"name": name, **({"weight": _number(text, weight)} if colon else {})}


def controlnet(text: str) -> dict[str, Any]:
    """`NAME:FILE` or `NAME:FILE:SCALE`. Raises typer.BadParameter."""
    return _with_file(text, "conditioning_scale")


def ip_adapter(text: str) -> dict[str, Any]:
    """`NAME:FILE` or `NAME:FILE:SCALE`. Raises typer.BadParameter."""
    return _with_file(text, "scale")


def hires(text: str) -> dict[str, Any]:
    """`SCALE` or `SCALE:UPSCALER`. Raises typer.BadParameter."""
    scale, _, upscaler = text.partition(":")
    return {"scale": _number(text, scale), **({"upscaler": upscaler} if upscaler else {})}


def refiner(text: str) -> dict[str, Any]:
    """`NAME` or `NAME:SWITCH_AT`. Raises typer.BadParameter."""
    name, colon, switch_at = text.partition(":")
    return {"name": name, **({"switch_at": _number(text, switch_at)} if colon else {})}


def scheduler_option(text: str) -> tuple[str, Any]:
    """`name=value`; true, false and numbers are taken as such. Raises typer.BadParameter."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE, such as use_karras_sigmas=true")
    if value in ("true", "false"):
        return name, value == "true"
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def _with_file(text: str, scale_name: str) -> dict[str, Any]:
    name, colon, rest = text.partition(":")
    if not (name and colon and rest):
        raise typer.BadParameter(f"{text!r} is not NAME:FILE or NAME:FILE:SCALE")
    file, colon, scale = rest.rpartition(":")
    # A file's name may have a colon itself.
    if not colon or Path(rest).exists():
        return {"name": name, "image": Path(rest)}
    return {"name": name, "image": Path(file), scale_name: _number(text, scale)}


def _number(text: str, number: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: {number!r} is not a number") from None
