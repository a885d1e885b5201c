"""The words as the pipeline takes them: plain, weighted, or longer than the text encoder reads."""

from __future__ import annotations

from typing import Any

from gpu_worker.request import GenerationRequest


def arguments(pipe: Any, request: GenerationRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the pipeline is called with for the prompts, and what the record says of them."""
    given: dict[str, Any] = {"prompt": request.prompt}
    if request.negative_prompt:
        given["negative_prompt"] = request.negative_prompt
    return given, {}
