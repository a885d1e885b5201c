"""Reads what AUTOMATIC1111 writes into prompts: LoRAs, weights in brackets, BREAK.

`(word:1.2)` is the service's own form. `(word)` and `[word]` become it, with A1111's factor 1.1
(`parse_prompt_attention`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

EMPHASIS = 1.1
"""A1111 multiplies the weight by it in `(word)`, and divides by it in `[word]`."""

_NETWORK = re.compile(r"<(\w+):([^<>]*)>")
_BREAK = re.compile(r"(?<!\w)BREAK(?!\w)")
_SPACES = re.compile(r" {2,}")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
_TOKEN = re.compile(r"\\.|[()\[\]]|:\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*\)")
_EDITING = re.compile(r"[|]|:[^\[\]:]*:?\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*$")
"""The inside of `[from:to:0.5]`, `[to:0.5]` and `[one|other]`, which are no weights."""


@dataclass
class PromptText:
    """A prompt without the LoRAs in it. `loras` maps their names to weights."""

    text: str
    loras: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read(prompt: str, *, weighted: bool = True) -> PromptText:
    """Return the parts of a prompt.

    Args:
        weighted: whether the model reads weights. Otherwise brackets stay as they are.
    """
    parts = PromptText("")
    text = _NETWORK.sub(lambda match: _take_network(match, parts), prompt)
    if _BREAK.search(text):
        text = _BREAK.sub(" ", text)
        parts.notes.append("BREAK: a prompt is not split here")
    if weighted and any(mark in text for mark in "()[]"):
        text = _with_weights(text, parts)
    parts.text = _SPACES.sub(" ", text).strip() if text != prompt else text.strip()
    return parts


def _take_network(match: re.Match[str], parts: PromptText) -> str:
    kind, arguments = match[1].lower(), match[2].split(":")
    if kind not in ("lora", "lyco"):
        parts.notes.append(f"<{kind}:...>: only LoRAs can be named in a prompt")
        return ""
    numbers = [each for each in arguments[1:] if _NUMBER.fullmatch(each.strip())]
    if len(arguments) > 2 or len(numbers) != len(arguments) - 1:
        parts.notes.append(f"<lora:{arguments[0][:64]}>: one weight is for all its parts here")
    parts.loras[arguments[0].strip()] = float(numbers[0]) if numbers else 1.0
    return ""


def _with_weights(text: str, parts: PromptText) -> str:
    """Return the text with each bracket as `(text:weight)`. Unmatched brackets stay."""
    pieces: list[str] = []
    open_at: list[tuple[int, str]] = []
    at = 0
    for match in _TOKEN.finditer(text):
        pieces.append(text[at : match.start()])
        at, token = match.end(), match[0]
        if token in ("\\[", "\\]"):
            pieces.append(token[1])
        elif token in "([":
            open_at.append((len(pieces), token))
            pieces.append(token)
        elif token == "]" and open_at and open_at[-1][1] == "[":
            _close_square(pieces, open_at.pop()[0], parts)
        elif token == ")" and open_at and open_at[-1][1] == "(":
            open_at.pop()
            pieces.append(f":{EMPHASIS:g})")
        else:
            if token[0] == ":" and open_at and open_at[-1][1] == "(":
                open_at.pop()
            pieces.append(token)
    pieces.append(text[at:])
    return "".join(pieces)


def _close_square(pieces: list[str], begin: int, parts: PromptText) -> None:
    inside = "".join(pieces[begin + 1 :])
    if _EDITING.search(inside):
        parts.notes.append("[...]: a prompt stays the same in all steps here")
        pieces.append("]")
        return
    pieces[begin] = "("
    pieces.append(f":{1 / EMPHASIS:.4f})")
