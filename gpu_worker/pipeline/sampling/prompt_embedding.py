"""Turns prompts into call arguments: plain, weighted, or longer than the text encoder reads.

Plain prompts are passed to diffusers. For Stable Diffusion 1, 2 and XL, compel handles weights and
prompts beyond CLIP's 77 tokens. Other families read what fits, and the record has the rest.
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
from gpu_worker.pipeline.execution import dtypes
from gpu_worker.pipeline.families import family_of

_LAST = ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED
_PENULTIMATE = ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED


def build(pipe: Any, request: GenerationRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the call arguments for the prompts, and the record's metadata about them.

    Raises:
        Unsupported: a weight is out of range.
    """
    if not family_of(pipe).weighted_prompts:
        arguments = _plain(request.prompt, request.negative_prompt)
        unread = {f"{field}_cut": _unread_end(pipe, text) for field, text in arguments.items()}
        return arguments, {field: rest for field, rest in unread.items() if rest}
    prompts = (
        prompt_weights.parse(request.prompt),
        prompt_weights.parse(request.negative_prompt, "negative_prompt"),
    )
    tokens = _tokens(pipe, prompt_weights.plain_text(prompts[0]))
    metadata: dict[str, Any] = {"prompt_tokens": tokens}
    longest = max(tokens, _tokens(pipe, prompt_weights.plain_text(prompts[1])))
    fits = longest <= _tokenizer(pipe).model_max_length - 2
    if fits and not any(prompt_weights.is_weighted(fragments) for fragments in prompts):
        return _plain(*map(prompt_weights.plain_text, prompts)), metadata
    if family_of(pipe).two_encoders:
        return _xl(pipe, request, *prompts), metadata
    return _single(pipe, request, *prompts), metadata


def _plain(prompt: str, negative_prompt: str) -> dict[str, Any]:
    arguments = {"prompt": prompt}
    if negative_prompt:
        arguments["negative_prompt"] = negative_prompt
    return arguments


def _tokenizer(pipe: Any) -> Any:
    """Return the first tokenizer; some pipelines of SDXL have only the second."""
    return pipe.tokenizer or pipe.tokenizer_2


def _tokens(pipe: Any, text: str) -> int:
    """Return a prompt's largest number of tokens of all encoders, without start and end.

    A textual inversion counts one token for each vector that the encoder has.
    """
    counts = []
    for suffix in ("", "_2"):
        tokenizer = getattr(pipe, f"tokenizer{suffix}", None)
        if tokenizer is not None:
            ids = tokenizer(text, truncation=False, add_special_tokens=False).input_ids
            counts.append(len(ids))
    return max(counts)


def _unread_end(pipe: Any, text: str) -> str:
    """Return the end of the prompt that no text encoder reads."""
    shortest = text
    for suffix in ("", "_2", "_3"):
        tokenizer = getattr(pipe, f"tokenizer{suffix}", None)
        limit = _limit(pipe, tokenizer)
        if tokenizer is None or limit is None:
            continue
        tokens = tokenizer(text, truncation=False).input_ids
        read_tokens = tokenizer(text, truncation=True, max_length=limit).input_ids
        rest = tokenizer.decode(tokens[len(read_tokens) - 1 : -1], skip_special_tokens=True)
        shortest = min(shortest, "" if len(tokens) <= len(read_tokens) else rest.strip(), key=len)
    return "" if shortest == text else shortest


def _limit(pipe: Any, tokenizer: Any) -> int | None:
    """Return the limit of tokens: CLIP's own, or the pipeline's default length for T5."""
    if tokenizer is None:
        return None
    if "CLIP" in type(tokenizer).__name__:
        return int(tokenizer.model_max_length)
    parameter = inspect.signature(type(pipe).__call__).parameters.get("max_sequence_length")
    return (
        int(parameter.default)
        if parameter is not None and isinstance(parameter.default, int)
        else None
    )


def _compel(
    pipe: Any, suffix: str, kind: ReturnedEmbeddingsType, skip: int, *, pooled: bool = False
) -> Compel:
    return Compel(
        tokenizer=getattr(pipe, f"tokenizer{suffix}"),
        text_encoder=_CompelEncoder(
            getattr(pipe, f"text_encoder{suffix}"), skip, pipe._execution_device
        ),
        dtype_for_device_getter=lambda device: torch.float32,
        truncate_long_prompts=False,
        split_long_text_mode=SplitLongTextMode.PHRASES,
        returned_embeddings_type=kind,
        requires_pooled=pooled,
        device=str(pipe._execution_device),
    )


class _CompelEncoder:
    """A text encoder as compel uses it: without its last layers, on the device that computes.

    The layers are skipped as in diffusers' encode_prompt. compel itself can skip one at most.
    compel returns the embeddings on `device`, which is not where offloaded weights rest.
    """

    def __init__(self, encoder: Any, skip: int, device: torch.device) -> None:
        self._encoder = encoder
        self._skip = skip
        self.device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._skip:
            return self._encoder(*args, **kwargs)
        output = self._encoder(*args, **{**kwargs, "output_hidden_states": True})
        output.hidden_states = output.hidden_states[: -self._skip]
        output.last_hidden_state = _norm(self._encoder)(output.hidden_states[-1])
        return output


def _norm(encoder: Any) -> Any:
    # transformers 5 has no text_model around CLIP's layers any more.
    return getattr(encoder, "text_model", encoder).final_layer_norm


def _embed(compel: Compel, fragments: list[Fragment]) -> torch.Tensor:
    """Return one prompt's embeddings, (1, 77 n, width)."""
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
    dtype = dtypes.of_denoiser(pipe)
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
            provider.get_pooled_embeddings(
                [prompt_weights.plain_text(fragments)], device=second.device
            )
            for fragments in (positive, negative)
        ]
    embeds, other = (torch.cat(parts, dim=-1) for parts in zip(*pairs, strict=True))
    if not request.negative_prompt and pipe.config.get("force_zeros_for_empty_prompt"):
        # diffusers' encode_prompt does the same.
        other, pooled[1] = torch.zeros_like(other), torch.zeros_like(pooled[1])
    dtype = dtypes.of_denoiser(pipe)
    return {
        "prompt_embeds": embeds.to(dtype),
        "negative_prompt_embeds": other.to(dtype),
        "pooled_prompt_embeds": pooled[0].to(dtype),
        "negative_pooled_prompt_embeds": pooled[1].to(dtype),
    }
