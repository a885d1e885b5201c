"""Makes diffusers' clip_skip work with the installed version of transformers.

transformers 5.6 made CLIPTextModel flat. diffusers 0.42 still looks for its inner `text_model` for
clip_skip, and fails. For one job the encoder therefore refers to itself as its inner part.
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
    """Make a flat text encoder its own `text_model` for the duration of the context.

    It is not permanent, because a LoRA's keys are read differently when `text_model` exists. It is
    not a submodule, because the encoder would be its own child.

    Raises:
        Unsupported: an encoder has fewer layers than clip_skip requires.
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
    """Raise Unsupported when an encoder has too few layers.

    SDXL and SD 3 always skip the last layer, so clip_skip can skip one layer less there.
    """
    for suffix, skipped in family_of(pipe).skipped_layers.items():
        encoder = getattr(pipe, f"text_encoder{suffix}", None)
        layers = getattr(getattr(encoder, "config", None), "num_hidden_layers", None)
        if layers is not None and clip_skip > layers - skipped:
            reason = (
                f"has a text encoder of {layers} layers and can skip at most {layers - skipped}"
            )
            raise unsupported("clip_skip", clip_skip, pipe, reason)
