"""Lets diffusers leave out a text encoder's last layers with the transformers of today.

transformers 5.6 made CLIPTextModel flat; diffusers 0.42 still looks for its inner `text_model` when
it is asked for clip_skip, and fails. For one job the encoder stands in for its inner part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.families import family_of
from gpu_worker.pipeline.loading.loaded_model import unsupported


@contextlib.contextmanager
def enabled(pipe: Any, request: GenerationRequest) -> Iterator[None]:
    """Within, a flat text encoder is its own `text_model`.

    Raises:
        Unsupported: an encoder has not so many layers to leave out.

    Not for good: a LoRA's keys are read by whether there is one. Not as a submodule: it would be
    its own child.
    """
    if request.clip_skip is not None:
        _check(pipe, request.clip_skip)
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


def _check(pipe: Any, clip_skip: int) -> None:
    """XL and 3 read the last layer but one anyhow: one less can be left out there."""
    for end, already in family_of(pipe).skipped_layers.items():
        encoder = getattr(pipe, f"text_encoder{end}", None)
        layers = getattr(getattr(encoder, "config", None), "num_hidden_layers", None)
        if layers is not None and clip_skip > layers - already:
            why = f"has a text encoder of {layers} layers and can leave out {layers - already}"
            raise unsupported("clip_skip", clip_skip, pipe, why)
