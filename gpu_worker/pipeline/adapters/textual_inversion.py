"""Attaches textual inversions from models.toml for one job: tokens with learned embeddings."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch

from gpu_worker.contract import prompt_weights
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.adapters import learned_words
from gpu_worker.pipeline.inputs.context import GenerationContext
from gpu_worker.pipeline.loading import embedding_files
from gpu_worker.pipeline.loading.loaded_model import unsupported

SUFFIXES = ("", "_2")
"""The suffixes of the text encoders and tokenizers that can get words."""

Vectors = dict[str, torch.Tensor]
"""The vectors of each word, of shape (n, width)."""

_LEGACY_EOS = 2
"""The `eos_token_id` of old configurations. CLIP then takes the highest id as the text's end."""


@contextlib.contextmanager
def attach(pipe: Any, context: GenerationContext) -> Iterator[dict[str, Any]]:
    """Add the words of the request's textual inversions for this context; yield record fields.

    The text encoders are shared with the loaded pipeline, so their embeddings are restored.

    Args:
        pipe: the job's own pipeline, which gets copies of the tokenizers.

    Raises:
        Unsupported: the pipeline does not support one, or two of them have the same word.
        ModelsError: a name is not in models.toml, or is not a textual inversion.
    """
    request = context.request
    if not request.embeddings:
        yield {}
        return
    if not hasattr(pipe, "load_textual_inversion"):
        reason = "does not support textual inversion"
        raise unsupported("embeddings", request.embeddings, pipe, reason)
    words, by_suffix = _load(pipe, context)
    prompts = [request.prompt, request.negative_prompt]
    with contextlib.ExitStack() as stack:
        for suffix, vectors in by_suffix.items():
            name = f"tokenizer{suffix}"
            tokenizer = copy.deepcopy(getattr(pipe, name))
            counts = {word: len(rows) for word, rows in vectors.items()}
            ids = learned_words.teach(tokenizer, counts, prompts)
            stack.enter_context(
                _enlarged(getattr(pipe, f"text_encoder{suffix}"), tokenizer, vectors, ids)
            )
            pipe.register_modules(**{name: tokenizer})
        yield _unused(request, words)


def _load(pipe: Any, context: GenerationContext) -> tuple[dict[str, str], dict[str, Vectors]]:
    """Return the word of each embedding, and the vectors by the suffix of their encoder."""
    words: dict[str, str] = {}
    by_suffix: dict[str, Vectors] = {}
    for name in dict.fromkeys(context.request.embeddings):
        learned, vectors = embedding_files.load(context.assets, name)
        word = learned.word
        for encoder, rows in vectors.items():
            suffix = _fitting_suffix(pipe, name, encoder, rows.shape[-1])
            others = by_suffix.setdefault(suffix, {})
            if any(word.casefold() == each.casefold() for each in others):
                reason = f"has the word {word!r} for two of these embeddings; set `token` for one"
                raise unsupported("embeddings", context.request.embeddings, pipe, reason)
            others[word] = rows
        words[name] = word
    return words, by_suffix


def _fitting_suffix(pipe: Any, name: str, suffix: str | None, width: int) -> str:
    """Return the suffix of the encoder that the vectors are for."""
    encoders = {each: getattr(pipe, f"text_encoder{each}", None) for each in SUFFIXES}
    widths = {
        each: encoder.get_input_embeddings().embedding_dim
        for each, encoder in encoders.items()
        if encoder is not None
    }
    candidates = list(widths) if suffix is None else [suffix]
    if suffix is not None and suffix not in widths:
        order = "second" if suffix else "first"
        reason = f"has no {order} text encoder, which this textual inversion has vectors for"
        raise unsupported("embeddings", name, pipe, reason)
    for each in candidates:
        if widths[each] == width:
            return each
    listed = " and ".join(str(widths[each]) for each in candidates)
    reason = f"has a text encoder of width {listed}, but this textual inversion has width {width}"
    raise unsupported("embeddings", name, pipe, reason)


@contextlib.contextmanager
def _enlarged(
    encoder: Any, tokenizer: Any, vectors: Vectors, ids: dict[str, list[int]]
) -> Iterator[None]:
    """Add the vectors to the encoder's embeddings for this context."""
    own = encoder.get_input_embeddings()
    encoder.set_input_embeddings(_with_rows(own, vectors, ids))
    legacy = [part for part in encoder.modules() if getattr(part, "eos_token_id", 0) == _LEGACY_EOS]
    if tokenizer.eos_token_id != _LEGACY_EOS:
        # A new word has a higher id than the end of the text, which CLIP pools.
        for part in legacy:
            part.eos_token_id = tokenizer.eos_token_id
    try:
        yield
    finally:
        encoder.set_input_embeddings(own)
        for part in legacy:
            part.eos_token_id = _LEGACY_EOS


def _with_rows(own: Any, vectors: Vectors, ids: dict[str, list[int]]) -> torch.nn.Embedding:
    weight = own.weight.detach()
    size = 1 + max(max(rows) for rows in ids.values())
    more = weight.new_zeros(max(size - len(weight), 0), weight.shape[1])
    rows = torch.cat([weight, more])
    for word, indices in ids.items():
        rows[indices] = vectors[word].to(rows)
    return torch.nn.Embedding.from_pretrained(rows, freeze=True)


def _unused(request: GenerationRequest, words: dict[str, str]) -> dict[str, Any]:
    """Return record fields that name the embeddings whose word is in neither prompt."""
    search = learned_words.LearnedWords(dict.fromkeys(words.values(), ""))
    used = {
        word
        for field in ("prompt", "negative_prompt")
        for fragment in prompt_weights.parse(getattr(request, field), field)
        for word in search.used(fragment.text)
    }
    unused = {name: word for name, word in words.items() if word not in used}
    if not unused:
        return {}
    return {
        "embeddings_unused": list(unused),
        "warnings": [
            f"embeddings: {name!r} has no effect, because its word {word!r} is in neither prompt"
            for name, word in unused.items()
        ],
    }
