"""Attaches textual inversions from models.toml for one job: tokens with learned embeddings."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from safetensors.torch import load_file

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.pipeline.loading.asset_files import AssetFiles, check_header
from gpu_worker.pipeline.loading.loaded_model import unsupported
from gpu_worker.pipeline.sampling.context import GenerationContext

ENCODERS = {"clip_l": "", "clip_g": "_2"}
"""Keys of files for SDXL, and the suffix of their text encoder's and tokenizer's names."""

FORMAT_KEYS = ("emb_params", *ENCODERS)
"""Keys that name a format, not a token."""


@contextlib.contextmanager
def attach(pipe: Any, context: GenerationContext) -> Iterator[None]:
    """Add the tokens of the request's textual inversions for the duration of the context.

    The text encoders are shared with the loaded pipeline, so their embeddings are restored.

    Args:
        pipe: the job's own pipeline, which gets copies of the tokenizers.

    Raises:
        Unsupported: the pipeline has no textual inversion, or one is for another text encoder.
        ModelsError: a name is not in models.toml, or is not a textual inversion.
    """
    request, assets = context.request, context.assets
    if not request.embeddings:
        yield
        return
    if not hasattr(pipe, "load_textual_inversion"):
        raise unsupported(
            "embeddings", request.embeddings, pipe, "does not support textual inversion"
        )
    with contextlib.ExitStack() as stack:
        for suffix in ENCODERS.values():
            if getattr(pipe, f"text_encoder{suffix}", None) is not None:
                stack.enter_context(_vocabulary_restored(getattr(pipe, f"text_encoder{suffix}")))
                name = f"tokenizer{suffix}"
                pipe.register_modules(**{name: copy.deepcopy(getattr(pipe, name))})
        for name in dict.fromkeys(request.embeddings):
            _load(pipe, name, assets)
        yield


@contextlib.contextmanager
def _vocabulary_restored(encoder: Any) -> Iterator[None]:
    """Give the encoder a copy of its embeddings, and restore the original afterwards."""
    embeddings = encoder.get_input_embeddings()
    size = encoder.config.vocab_size
    encoder.set_input_embeddings(copy.deepcopy(embeddings))
    try:
        yield
    finally:
        encoder.set_input_embeddings(embeddings)
        encoder.config.vocab_size = size


def _load(pipe: Any, name: str, assets: AssetFiles) -> None:
    part = assets.library.part("embeddings", name)
    file = assets.file("embeddings", name)
    check_header(file, f"embeddings.{name}")
    vectors = load_file(file)
    if not set(vectors) <= set(ENCODERS):
        if len(vectors) != 1:
            raise ModelsError(
                f"embeddings.{name}: is not a textual inversion, which holds one tensor"
            )
        key, vector = next(iter(vectors.items()))
        token = part.token or (name if key in FORMAT_KEYS else key)
        _add_token(pipe, name, token, vector, "")
        return
    for key, vector in vectors.items():
        _add_token(pipe, name, part.token or name, vector, ENCODERS[key])


def _add_token(pipe: Any, name: str, token: str, vector: torch.Tensor, suffix: str) -> None:
    encoder = getattr(pipe, f"text_encoder{suffix}", None)
    if encoder is None:
        order = "second" if suffix else "first"
        reason = f"has no {order} text encoder, which this textual inversion has vectors for"
        raise unsupported("embeddings", name, pipe, reason)
    width = encoder.get_input_embeddings().embedding_dim
    if width != vector.shape[-1]:
        reason = (
            f"has a text encoder of width {width}, but this textual inversion has width "
            f"{vector.shape[-1]}"
        )
        raise unsupported("embeddings", name, pipe, reason)
    tokenizer = getattr(pipe, f"tokenizer{suffix}")
    try:
        pipe.load_textual_inversion(vector, token=token, text_encoder=encoder, tokenizer=tokenizer)
    except ValueError as error:
        reason = f"cannot add the token {token!r}: {error}"
        raise unsupported("embeddings", name, pipe, reason) from error
