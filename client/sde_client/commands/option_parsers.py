"""Parsers for command line options: each converts text to values of a request.

The factories return a parser for one option. Every parser raises typer.BadParameter if the text has
another form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer

Parser = Callable[[str], Any]


def number(text: str) -> float:
    """Parse a number."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number") from None


def integer(text: str) -> int:
    """Parse a whole number."""
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number") from None


def size(text: str) -> tuple[int, int]:
    """Parse `512x768` into (width, height) in pixels."""
    width, cross, height = text.lower().partition("x")
    if not (
        cross and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()
    ):
        raise typer.BadParameter(f"{text!r} is not WIDTHxHEIGHT, such as 512x512")
    return int(width), int(height)


def named(value_field: str) -> Parser:
    """Return a parser of `NAME` or `NAME:NUMBER`; the number becomes `value_field`."""

    def parse(text: str) -> dict[str, Any]:
        name, colon, value = text.partition(":")
        return {"name": name, **({value_field: _part(text, number, value)} if colon else {})}

    return parse


def named_image(scale_field: str, settings: Mapping[str, str] | None = None) -> Parser:
    """Return a parser of `NAME:FILE`, optionally followed by `:NUMBER` and `:KEY=NUMBER`.

    Args:
        scale_field: the request field of the number.
        settings: the request fields of the keys.
    """
    fields = settings or {}

    def parse(text: str) -> dict[str, Any]:
        rest, values = text, {}
        # A file name may end in `:KEY=NUMBER` itself.
        while not Path(rest.partition(":")[2]).exists():
            before, _, last = rest.rpartition(":")
            key, equals, value = last.partition("=")
            if not equals or key not in fields:
                break
            rest, values[fields[key]] = before, _part(text, number, value)
        return {**_with_file(rest, scale_field), **values}

    return parse


def settings(
    positions: Mapping[str, Parser], keys: Mapping[str, tuple[str, Parser]]
) -> Callable[[str], dict[str, Any]]:
    """Return a parser of values that are separated by colons: `2:lanczos:steps=20`.

    Args:
        positions: the request fields of the values without a key, in order, and their parsers. The
            first value is required.
        keys: the request field and the parser of each `KEY=VALUE`.
    """
    forms = [*(field.upper() for field in positions), *(f"{key}=VALUE" for key in keys)]

    def parse(text: str) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        unused = list(positions)
        for part in text.split(":"):
            key, equals, value = part.partition("=")
            if not equals and unused:
                field = unused.pop(0)
                fields[field] = _part(text, positions[field], part)
            elif equals and key in keys and len(unused) < len(positions):
                field, parser = keys[key]
                fields[field] = _part(text, parser, value)
            else:
                raise typer.BadParameter(f"{text!r}: {part!r} is not one of {', '.join(forms)}")
        return fields

    return parse


def scheduler_option(text: str) -> tuple[str, Any]:
    """Parse `name=value`. `true`, `false` and numbers are converted."""
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


def _with_file(text: str, scale_field: str) -> dict[str, Any]:
    name, colon, rest = text.partition(":")
    if not (name and colon and rest):
        raise typer.BadParameter(f"{text!r} is not NAME:FILE or NAME:FILE:SCALE")
    file, colon, scale = rest.rpartition(":")
    # A file name may contain a colon itself.
    if not colon or Path(rest).exists():
        return {"name": name, "image": Path(rest)}
    return {"name": name, "image": Path(file), scale_field: _part(text, number, scale)}


def _part(text: str, parser: Parser, part: str) -> Any:
    """Return a parsed part of the text. An error names the whole text."""
    try:
        return parser(part)
    except typer.BadParameter as error:
        raise typer.BadParameter(f"{text!r}: {error.message}") from None
