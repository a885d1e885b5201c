"""Textual inversions of models.toml for one job: words that a file has learned."""

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
"""Keys of files for SDXL, and what ends the names of encoder and tokenizer that they are for."""

NO_TOKENS = ("emb_params", *ENCODERS)
"""Keys that name a format, not a word."""


@contextlib.contextmanager
def attach(pipe: Any, context: GenerationContext) -> Iterator[None]:
    """The pipeline knows their words within. `pipe` must be the job's own: it gets tokenizers of
    its own, while the text encoders are shared and get their old embeddings back.

    Raises:
        Unsupported: the pipeline takes none, or one was made for another text encoder.
        ModelsError: models.toml does not know one, or it is none.
    """
    request, shelf = context.request, context.assets
    if not request.embeddings:
        yield
        return
    if not hasattr(pipe, "load_textual_inversion"):
        raise unsupported("embeddings", request.embeddings, pipe, "takes no textual inversion")
    with contextlib.ExitStack() as stack:
        for end in ENCODERS.values():
            if getattr(pipe, f"text_encoder{end}", None) is not None:
                stack.enter_context(_vocabulary_restored(getattr(pipe, f"text_encoder{end}")))
                name = f"tokenizer{end}"
                pipe.register_modules(**{name: copy.deepcopy(getattr(pipe, name))})
        for name in dict.fromkeys(request.embeddings):
            _load(pipe, name, shelf)
        yield


@contextlib.contextmanager
def _vocabulary_restored(encoder: Any) -> Iterator[None]:
    """Within, the encoder has a copy of its embeddings; then its own are back."""
    own = encoder.get_input_embeddings()
    size = encoder.config.vocab_size
    encoder.set_input_embeddings(copy.deepcopy(own))
    try:
        yield
    finally:
        encoder.set_input_embeddings(own)
        encoder.config.vocab_size = size


def _load(pipe: Any, name: str, shelf: AssetFiles) -> None:
    part = shelf.library.part("embeddings", name)
    file = shelf.file("embeddings", name)
    check_header(file, f"embeddings.{name}")
    vectors = load_file(file)
    if not set(vectors) <= set(ENCODERS):
        if len(vectors) != 1:
            raise ModelsError(f"embeddings.{name}: is no textual inversion, which holds one tensor")
        key, vector = next(iter(vectors.items()))
        token = part.token or (name if key in NO_TOKENS else key)
        _add_token(pipe, name, token, vector, "")
        return
    for key, vector in vectors.items():
        _add_token(pipe, name, part.token or name, vector, ENCODERS[key])


def _add_token(pipe: Any, name: str, token: str, vector: torch.Tensor, end: str) -> None:
    encoder = getattr(pipe, f"text_encoder{end}", None)
    if encoder is None:
        order = "second" if end else "first"
        why = f"has no {order} text encoder, for which this textual inversion has vectors"
        raise unsupported("embeddings", name, pipe, why)
    width = encoder.get_input_embeddings().embedding_dim
    if width != vector.shape[-1]:
        why = f"has a text encoder of width {width}, this textual inversion {vector.shape[-1]}"
        raise unsupported("embeddings", name, pipe, why)
    tokenizer = getattr(pipe, f"tokenizer{end}")
    try:
        pipe.load_textual_inversion(vector, token=token, text_encoder=encoder, tokenizer=tokenizer)
    except ValueError as error:
        why = f"cannot learn the token {token!r}: {error}"
        raise unsupported("embeddings", name, pipe, why) from error
