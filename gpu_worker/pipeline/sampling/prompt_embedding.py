"""The words as the pipeline takes them: plain, weighted, or longer than the text encoder reads.

Plain prompts go to diffusers as they are. Weights and prompts beyond CLIP's 77 tokens are compel's,
for Stable Diffusion 1, 2 and XL; other families read what fits, and the record says what did not.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from compel import Compel, ReturnedEmbeddingsType, SplitLongTextMode
from compel.prompt_parser import FlattenedPrompt

from gpu_worker.contract import prompt_weights
from gpu_worker.contract.prompt_weights import Fragment
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.families import family_of

_LAST = ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED
_PENULTIMATE = ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED


def build(pipe: Any, request: GenerationRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the pipeline is called with for the prompts, and what the record says of them.

    Raises:
        Unsupported: a weight is beyond reason.
    """
    if not family_of(pipe).weighted_prompts:
        words = _plain(request.prompt, request.negative_prompt)
        cut = {f"{field}_cut": _unread_end(pipe, text) for field, text in words.items()}
        return words, {field: rest for field, rest in cut.items() if rest}
    said = (
        prompt_weights.parse(request.prompt),
        prompt_weights.parse(request.negative_prompt, "negative_prompt"),
    )
    tokens = _tokens(pipe, prompt_weights.plain_text(said[0]))
    facts: dict[str, Any] = {"prompt_tokens": tokens}
    longest = max(tokens, _tokens(pipe, prompt_weights.plain_text(said[1])))
    fits = longest <= _tokenizer(pipe).model_max_length - 2
    if fits and not any(prompt_weights.is_weighted(fragments) for fragments in said):
        return _plain(*map(prompt_weights.plain_text, said)), facts
    if family_of(pipe).two_encoders:
        return _xl(pipe, request, *said), facts
    return _single(pipe, request, *said), facts


def _plain(prompt: str, negative_prompt: str) -> dict[str, Any]:
    given = {"prompt": prompt}
    if negative_prompt:
        given["negative_prompt"] = negative_prompt
    return given


def _tokenizer(pipe: Any) -> Any:
    """The first one; an SDXL refiner has only the second."""
    return pipe.tokenizer or pipe.tokenizer_2


def _tokens(pipe: Any, text: str) -> int:
    """How many tokens a prompt has where it has most, begin and end not counted: a word of a
    textual inversion is as many as the file has vectors for that encoder."""
    counts = []
    for end in ("", "_2"):
        tokenizer = getattr(pipe, f"tokenizer{end}", None)
        if tokenizer is not None:
            ids = tokenizer(text, truncation=False, add_special_tokens=False).input_ids
            counts.append(len(ids))
    return max(counts)


def _unread_end(pipe: Any, text: str) -> str:
    """The end of the prompt that the encoder which reads furthest does not read."""
    least = text
    for number in ("", "_2", "_3"):
        tokenizer = getattr(pipe, f"tokenizer{number}", None)
        limit = _limit(pipe, tokenizer)
        if tokenizer is None or limit is None:
            continue
        tokens = tokenizer(text, truncation=False).input_ids
        kept = tokenizer(text, truncation=True, max_length=limit).input_ids
        rest = tokenizer.decode(tokens[len(kept) - 1 : -1], skip_special_tokens=True)
        least = min(least, "" if len(tokens) <= len(kept) else rest.strip(), key=len)
    return "" if least == text else least


def _limit(pipe: Any, tokenizer: Any) -> int | None:
    """Tokens that are read: CLIP's own limit, or the length that the pipeline asks T5 for."""
    if tokenizer is None:
        return None
    if "CLIP" in type(tokenizer).__name__:
        return int(tokenizer.model_max_length)
    asked = inspect.signature(type(pipe).__call__).parameters.get("max_sequence_length")
    return int(asked.default) if asked is not None and isinstance(asked.default, int) else None


def _compel(
    pipe: Any, number: str, kind: ReturnedEmbeddingsType, skip: int, *, pooled: bool = False
) -> Compel:
    return Compel(
        tokenizer=getattr(pipe, f"tokenizer{number}"),
        text_encoder=_SkippingEncoder(getattr(pipe, f"text_encoder{number}"), skip),
        dtype_for_device_getter=lambda device: torch.float32,
        truncate_long_prompts=False,
        split_long_text_mode=SplitLongTextMode.PHRASES,
        returned_embeddings_type=kind,
        requires_pooled=pooled,
        device=str(pipe._execution_device),
    )


class _SkippingEncoder:
    """A text encoder whose last layers are left out, as diffusers' encode_prompt leaves them out.

    compel knows one skipped layer at most.
    """

    def __init__(self, encoder: Any, skip: int) -> None:
        self._encoder = encoder
        self._skip = skip

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def __call__(self, *given: Any, **named: Any) -> Any:
        if not self._skip:
            return self._encoder(*given, **named)
        output = self._encoder(*given, **{**named, "output_hidden_states": True})
        output.hidden_states = output.hidden_states[: -self._skip]
        output.last_hidden_state = _norm(self._encoder)(output.hidden_states[-1])
        return output


def _norm(encoder: Any) -> Any:
    # transformers 5 has no text_model around CLIP's layers any more.
    return getattr(encoder, "text_model", encoder).final_layer_norm


def _embed(compel: Compel, fragments: list[Fragment]) -> torch.Tensor:
    """One prompt's embeddings, (1, 77 n, width)."""
    parts = [(fragment.text, fragment.weight) for fragment in fragments]
    with torch.no_grad():
        (embeds, _), _ = compel.build_conditioning_tensor_for_prompt_object(FlattenedPrompt(parts))
    return embeds.unsqueeze(0) if embeds.ndim == 2 else embeds


def _pair(
    compel: Compel, positive: list[Fragment], negative: list[Fragment]
) -> tuple[torch.Tensor, torch.Tensor]:
    both = [_embed(compel, positive), _embed(compel, negative)]
    first, second = compel.pad_conditioning_tensors_to_same_length(both)
    return first, second


def _single(
    pipe: Any, request: GenerationRequest, positive: list[Fragment], negative: list[Fragment]
) -> dict[str, Any]:
    compel = _compel(pipe, "", _LAST, request.clip_skip or 0)
    embeds, other = _pair(compel, positive, negative)
    dtype = pipe.dtype
    return {"prompt_embeds": embeds.to(dtype), "negative_prompt_embeds": other.to(dtype)}


def _xl(
    pipe: Any, request: GenerationRequest, positive: list[Fragment], negative: list[Fragment]
) -> dict[str, Any]:
    skip = request.clip_skip or 0
    second = _compel(pipe, "_2", _PENULTIMATE, skip, pooled=True)
    pairs = [_pair(second, positive, negative)]
    if pipe.tokenizer is not None:
        pairs.insert(0, _pair(_compel(pipe, "", _PENULTIMATE, skip), positive, negative))
    provider = second.conditioning_provider
    with torch.no_grad():
        pooled = [
            provider.get_pooled_embeddings([prompt_weights.plain_text(words)], device=second.device)
            for words in (positive, negative)
        ]
    embeds, other = (torch.cat(parts, dim=-1) for parts in zip(*pairs, strict=True))
    if not request.negative_prompt and pipe.config.get("force_zeros_for_empty_prompt"):
        # As diffusers' own encode_prompt does it.
        other, pooled[1] = torch.zeros_like(other), torch.zeros_like(pooled[1])
    dtype = pipe.dtype
    return {
        "prompt_embeds": embeds.to(dtype),
        "negative_prompt_embeds": other.to(dtype),
        "pooled_prompt_embeds": pooled[0].to(dtype),
        "negative_pooled_prompt_embeds": pooled[1].to(dtype),
    }
