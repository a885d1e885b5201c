"""Reads A1111's `parameters` text of an image (`parse_generation_parameters`)."""

from __future__ import annotations

import json
import re

_PAIR = re.compile(r'\s*(\w[\w \-/]{0,60}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_SIZE = re.compile(r"(\d+)x(\d+)")

_NEGATIVE = "Negative prompt:"

_LEAST_PAIRS = 3
"""A last line with fewer pairs is a part of the prompt."""

_DEFAULTS = {"Clip skip": "1", "Schedule type": "Automatic", "RNG": "GPU"}
"""What a text without these keys means."""


def split(text: str) -> tuple[str, str, str]:
    """Return the prompt, the negative prompt, and the line of pairs."""
    *lines, last = text.strip().split("\n")
    if len(_PAIR.findall(last)) < _LEAST_PAIRS:
        lines, last = [*lines, last], ""
    begins = next((at for at, line in enumerate(lines) if line.startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[begins:]).removeprefix(_NEGATIVE)
    return "\n".join(lines[:begins]).strip(), negative.strip(), last


def parameters(text: str) -> dict[str, str]:
    """Return the values of a text by A1111's keys; `Size` also as `Size-1` and `Size-2`."""
    prompt, negative, pairs = split(text)
    values = {"Prompt": prompt, "Negative prompt": negative}
    for key, value in _PAIR.findall(pairs):
        if value.startswith('"'):
            value = _unquoted(value)
        size = _SIZE.fullmatch(value)
        if size is not None:
            values |= {f"{key}-1": size[1], f"{key}-2": size[2]}
        else:
            values[key] = value
    return values if not pairs else _DEFAULTS | values


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value))
    except ValueError:
        return value
