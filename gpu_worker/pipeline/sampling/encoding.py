"""Encodes the prompts of a job once: the first stage, whose embeddings all its images share."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.families import call_parameters, family_of
from gpu_worker.pipeline.sampling import prompt_embedding

NAMES = ("", "negative_", "pooled_", "negative_pooled_")
"""The order in which encode_prompt returns embeddings. Stable Diffusion 1 and 2 have only two."""

_METHODS = (
    "encode_prompt",
    "_encode_prompt",
    "encode_image",
    "get_zero_embed",
    "prepare_ip_adapter_image_embeds",
)
"""Methods that diffusers' calls use for texts and images of a prompt, the same for each image."""

_INNER = ("prior_pipe", "decoder_pipe")
"""The pipelines inside Kandinsky's, which encode the prompt themselves."""

_PLAIN = (str, int, float, bool, torch.dtype, torch.device)
"""Types that are compared by value."""


def encode(
    pipe: Any, request: GenerationRequest, guidance_scale: float | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the call arguments for the prompts, and the record's metadata about them.

    They are embeddings (1, tokens, width), or texts for a family that does not run in stages.

    Raises:
        Unsupported: a weight is out of range.
    """
    arguments, metadata = prompt_embedding.build(pipe, request)
    if "prompt_embeds" in arguments or not _takes_embeddings(pipe):
        return arguments, metadata
    scale = 1.0 if guidance_scale is None else guidance_scale
    with torch.no_grad():
        embeds = pipe.encode_prompt(
            **_texts(arguments),
            device=pipe._execution_device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=scale > 1,
            **({} if request.clip_skip is None else {"clip_skip": request.clip_skip}),
        )
    named = {f"{name}prompt_embeds": each for name, each in zip(NAMES, embeds, strict=False)}
    return {name: each for name, each in named.items() if each is not None}, metadata


@contextlib.contextmanager
def once(pipe: Any) -> Iterator[None]:
    """Encode equal inputs of a pipeline once inside this context.

    Families that do not run in stages encode inside each call, where a T5 may cost more than steps.
    """
    pipes = [pipe, *(getattr(pipe, name) for name in _INNER if hasattr(pipe, name))]
    with contextlib.ExitStack() as stack:
        for owner, name in itertools.product(pipes, _METHODS):
            own = getattr(owner, name, None)
            if own is not None:
                vars(owner)[name] = _remembered(own)
                stack.callback(vars(owner).pop, name, None)
        yield


def _remembered(own: Callable[..., Any]) -> Callable[..., Any]:
    results: dict[Any, Any] = {}
    inputs: list[Any] = []

    @functools.wraps(own)
    def run(*arguments: Any, **named: Any) -> Any:
        key = _key([*arguments, *sorted(named.items())])
        if key not in results:
            results[key] = own(*arguments, **named)
            inputs.append((arguments, named))  # an identity in the key must stay taken
        return results[key]

    return run


def _key(value: Any) -> Any:
    """Return a key that is equal for equal texts and numbers, and for the very same objects."""
    if isinstance(value, list | tuple):
        return tuple(_key(each) for each in value)
    is_plain = value is None or isinstance(value, _PLAIN)
    return (type(value), value if is_plain else id(value))


def _takes_embeddings(pipe: Any) -> bool:
    is_staged = "encoding" in family_of(pipe).apart and hasattr(pipe, "encode_prompt")
    return is_staged and "prompt_embeds" in call_parameters(pipe)


def _texts(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the prompts as arguments of encode_prompt."""
    return {"prompt": arguments["prompt"], "negative_prompt": arguments.get("negative_prompt")}
