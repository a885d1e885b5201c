"""Recognises A1111 syntax that is plain text in a prompt of the native API. It does no I/O."""

from __future__ import annotations

import re

from gpu_worker.contract import prompt_weights
from gpu_worker.contract.request import GenerationRequest

_NUMBER = r"\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*"

_SYNTAX = (
    (
        re.compile(r"<(?:lora|lyco|hypernet):[^<>]+>", re.IGNORECASE),
        "no LoRA is loaded; use the field `loras`",
    ),
    (re.compile(r"(?<!\w)BREAK(?!\w)"), "the prompt is not split there"),
    (
        re.compile(rf"\[[^\[\]:]*:[^\[\]:]*:{_NUMBER}\]"),
        "the prompt stays the same in all steps",
    ),
    (re.compile(r"\[[^\[\]|]*\|[^\[\]]*\]"), "the prompt stays the same in all steps"),
)
"""The forms, and the effect that they do not have here."""

_MAX_CHARS = 40


def warnings(request: GenerationRequest, *, weighted: bool) -> list[str]:
    """Return a sentence for each form of A1111 syntax in the prompts of the request.

    Args:
        weighted: whether the model supports weights like `(word:1.3)`.
    """
    sentences = []
    for field in ("prompt", "negative_prompt"):
        text: str = getattr(request, field)
        for form, effect in _SYNTAX:
            for example in dict.fromkeys(match[0] for match in form.finditer(text)):
                sentences.append(_sentence(field, example, effect))
        if not weighted and prompt_weights.is_weighted(prompt_weights.parse(text, field)):
            sentences.append(f"{field}: weights such as (word:1.3) are plain text for this model")
    return list(dict.fromkeys(sentences))


def _sentence(field: str, example: str, effect: str) -> str:
    if len(example) > _MAX_CHARS:
        example = example[: _MAX_CHARS - 1] + "…"
    return f"{field}: {example!r} is A1111 syntax, which is plain text here: {effect}"
