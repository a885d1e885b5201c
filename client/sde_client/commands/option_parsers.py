"""Parsers for the options of `sde generate`: each turns text into values of a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer


def size(text: str) -> tuple[int, int]:
    """Parse `512x768` into (width, height) in pixels. Raises typer.BadParameter."""
    width, cross, height = text.lower().partition("x")
    if not (
        cross and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()
    ):
        raise typer.BadParameter(f"{text!r} is not WIDTHxHEIGHT, such as 512x512")
    return int(width), int(height)


def lora(text: str) -> dict[str, Any]:
    """Parse `NAME` or `NAME:WEIGHT`. Raises typer.BadParameter."""
    name, colon, weight = text.partition(":")
    return {"name": name, **({"weight": _number(text, weight)} if colon else {})}


def controlnet(text: str) -> dict[str, Any]:
    """Parse `NAME:FILE`, optionally followed by `:SCALE`, `:start=SHARE` and `:end=SHARE`.

    Raises:
        typer.BadParameter: the text has another form.
    """
    fields = {"start": "guidance_start", "end": "guidance_end"}
    rest, shares = text, {}
    # A file name may end in `:start=X` itself.
    while not Path(rest.partition(":")[2]).exists():
        before, _, last = rest.rpartition(":")
        key, equals, share = last.partition("=")
        if not equals or key not in fields:
            break
        rest, shares[fields[key]] = before, _number(text, share)
    return {**_with_file(rest, "conditioning_scale"), **shares}


def ip_adapter(text: str) -> dict[str, Any]:
    """Parse `NAME:FILE` or `NAME:FILE:SCALE`. Raises typer.BadParameter."""
    return _with_file(text, "scale")


def hires(text: str) -> dict[str, Any]:
    """Parse `SCALE`, optionally followed by `:UPSCALER`, `:strength=SHARE` and `:steps=NUMBER`.

    Raises:
        typer.BadParameter: the text has another form.
    """
    scale, *parts = text.split(":")
    options: dict[str, Any] = {"scale": _number(text, scale)}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals and "upscaler" not in options:
            options["upscaler"] = part
        elif key == "strength":
            options["strength"] = _number(text, value)
        elif key == "steps":
            options["num_inference_steps"] = _integer(text, value)
        else:
            raise typer.BadParameter(f"{text!r}: {part!r} is not UPSCALER, strength=X or steps=N")
    return options


def refiner(text: str) -> dict[str, Any]:
    """Parse `NAME` or `NAME:SWITCH_AT`. Raises typer.BadParameter."""
    name, colon, switch_at = text.partition(":")
    return {"name": name, **({"switch_at": _number(text, switch_at)} if colon else {})}


def scheduler_option(text: str) -> tuple[str, Any]:
    """Parse `name=value`; true, false and numbers become such. Raises typer.BadParameter."""
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
    # A file name may contain a colon itself.
    if not colon or Path(rest).exists():
        return {"name": name, "image": Path(rest)}
    return {"name": name, "image": Path(file), scale_name: _number(text, scale)}


def _number(text: str, number: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: {number!r} is not a number") from None


def _integer(text: str, number: str) -> int:
    try:
        return int(number)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: {number!r} is not a whole number") from None
