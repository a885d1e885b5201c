"""Recognises the syntax of A1111 that is plain text in a prompt of the native API. No I/O."""

from __future__ import annotations

import re

from gpu_worker.contract import prompt_weights
from gpu_worker.contract.request import GenerationRequest

_NUMBER = r"\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*"

_SYNTAX = (
    (
        re.compile(r"<(?:lora|lyco|hypernet):[^<>]+>", re.IGNORECASE),
        "it loads nothing; the field `loras` names LoRAs",
    ),
    (re.compile(r"(?<!\w)BREAK(?!\w)"), "the prompt is not split there"),
    (
        re.compile(rf"\[[^\[\]]*:{_NUMBER}\]"),
        "the prompt stays the same in all steps",
    ),
    (re.compile(r"\[[^\[\]|]*\|[^\[\]]*\]"), "the prompt stays the same in all steps"),
)
"""A form, and what a reader who knows A1111 expects in vain."""

_MAX_CHARS = 40


def warnings(request: GenerationRequest, *, weighted: bool) -> list[str]:
    """A sentence for each form of A1111's that a prompt of the request contains.

    Args:
        weighted: whether the model weighs `(word:1.3)`.
    """
    sentences = []
    for field in ("prompt", "negative_prompt"):
        text: str = getattr(request, field)
        for form, effect in _SYNTAX:
            for example in dict.fromkeys(match[0] for match in form.finditer(text)):
                sentences.append(_sentence(field, example, effect))
        if not weighted and prompt_weights.is_weighted(prompt_weights.parse(text, field)):
            sentences.append(f"{field}: weights such as (word:1.3) are plain words for this model")
    return sentences


def _sentence(field: str, example: str, effect: str) -> str:
    if len(example) > _MAX_CHARS:
        example = example[: _MAX_CHARS - 1] + "…"
    return f"{field}: {example!r} is A1111's syntax, which is plain words here: {effect}"
