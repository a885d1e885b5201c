"""Textual inversions of models.toml for one job: words that a file has learned."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch

from gpu_worker.contract import prompt_weights
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.adapters import learned_words
from gpu_worker.pipeline.loading import embedding_files
from gpu_worker.pipeline.loading.loaded_model import unsupported
from gpu_worker.pipeline.sampling.context import GenerationContext

ENDS = ("", "_2")
"""Suffixes of the encoders and tokenizers that can learn words."""

Vectors = dict[str, torch.Tensor]
"""Vectors (n, width) by word."""

_LEGACY_EOS = 2
"""The `eos_token_id` of old configurations: CLIP then takes the highest id for the text's end."""


@contextlib.contextmanager
def attach(pipe: Any, context: GenerationContext) -> Iterator[dict[str, Any]]:
    """The pipeline knows the words of the request's embeddings within; yields record fields.

    `pipe` must be the job's own: it gets tokenizers of its own. The text encoders are shared, and
    get their old embeddings back.

    Raises:
        Unsupported: the pipeline has no use for one, or two of them have the same word.
        ModelsError: models.toml does not know one, or its file is no textual inversion.
    """
    request = context.request
    if not request.embeddings:
        yield {}
        return
    if not hasattr(pipe, "load_textual_inversion"):
        raise unsupported("embeddings", request.embeddings, pipe, "takes no textual inversion")
    words, by_end = _load(pipe, context)
    prompts = [request.prompt, request.negative_prompt]
    with contextlib.ExitStack() as stack:
        for end, vectors in by_end.items():
            name = f"tokenizer{end}"
            tokenizer = copy.deepcopy(getattr(pipe, name))
            counts = {word: len(rows) for word, rows in vectors.items()}
            ids = learned_words.teach(tokenizer, counts, prompts)
            stack.enter_context(
                _enlarged(getattr(pipe, f"text_encoder{end}"), tokenizer, vectors, ids)
            )
            pipe.register_modules(**{name: tokenizer})
        yield _unused(request, words)


def _load(pipe: Any, context: GenerationContext) -> tuple[dict[str, str], dict[str, Vectors]]:
    """The words by embedding, and the vectors by the end of an encoder's name."""
    words: dict[str, str] = {}
    by_end: dict[str, Vectors] = {}
    for name in dict.fromkeys(context.request.embeddings):
        learned, vectors = embedding_files.load(context.assets, name)
        word = learned.word
        for encoder, rows in vectors.items():
            end = _fitting_end(pipe, name, encoder, rows.shape[-1])
            others = by_end.setdefault(end, {})
            if any(word.casefold() == each.casefold() for each in others):
                why = f"reads the word {word!r} for two of these embeddings; set `token` for one"
                raise unsupported("embeddings", context.request.embeddings, pipe, why)
            others[word] = rows
        words[name] = word
    return words, by_end


def _fitting_end(pipe: Any, name: str, end: str | None, width: int) -> str:
    """The end of the name of the encoder that the vectors are for."""
    encoders = {each: getattr(pipe, f"text_encoder{each}", None) for each in ENDS}
    widths = {
        each: encoder.get_input_embeddings().embedding_dim
        for each, encoder in encoders.items()
        if encoder is not None
    }
    candidates = list(widths) if end is None else [end]
    if end is not None and end not in widths:
        order = "second" if end else "first"
        why = f"has no {order} text encoder, for which this textual inversion has vectors"
        raise unsupported("embeddings", name, pipe, why)
    for each in candidates:
        if widths[each] == width:
            return each
    listed = " and ".join(str(widths[each]) for each in candidates)
    why = f"has a text encoder of width {listed}, this textual inversion {width}"
    raise unsupported("embeddings", name, pipe, why)


@contextlib.contextmanager
def _enlarged(
    encoder: Any, tokenizer: Any, vectors: Vectors, ids: dict[str, list[int]]
) -> Iterator[None]:
    """Within, the encoder has the vectors as further rows of its embeddings."""
    own = encoder.get_input_embeddings()
    encoder.set_input_embeddings(_with_rows(own, vectors, ids))
    legacy = [part for part in encoder.modules() if getattr(part, "eos_token_id", 0) == _LEGACY_EOS]
    if tokenizer.eos_token_id != _LEGACY_EOS:
        # A learned word has a higher id than the end of the text, which CLIP pools.
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
    size = 1 + max(max(places) for places in ids.values())
    more = weight.new_zeros(max(size - len(weight), 0), weight.shape[1])
    rows = torch.cat([weight, more])
    for word, places in ids.items():
        rows[places] = vectors[word].to(rows)
    return torch.nn.Embedding.from_pretrained(rows, freeze=True)


def _unused(request: GenerationRequest, words: dict[str, str]) -> dict[str, Any]:
    """Record fields that name the embeddings whose word is in neither prompt."""
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
