"""Lets diffusers leave out a text encoder's last layers with the transformers of today.

transformers 5.6 made CLIPTextModel flat; diffusers 0.42 still looks for its inner `text_model` when
it is asked for clip_skip, and fails. For one job the encoder stands in for its inner part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from gpu_worker.request import GenerationRequest


@contextlib.contextmanager
def possible(pipe: Any, request: GenerationRequest) -> Iterator[None]:
    """Within, a flat text encoder is its own `text_model`.

    Not for good: a LoRA's keys are read by whether there is one. Not as a submodule: it would be
    its own child.
    """
    encoder = getattr(pipe, "text_encoder", None)
    is_flat = hasattr(encoder, "final_layer_norm") and not hasattr(encoder, "text_model")
    if request.clip_skip is None or not is_flat:
        yield
        return
    encoder.__dict__["text_model"] = encoder
    try:
        yield
    finally:
        del encoder.__dict__["text_model"]
