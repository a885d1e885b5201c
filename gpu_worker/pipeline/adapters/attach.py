"""Attaches LoRA, textual inversion, IP-Adapter, ControlNet and another VAE for one job.

Each adapter has its own file. This one combines them in the order that offload needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from gpu_worker.contract import prompt_syntax
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.adapters import (
    clip_skip,
    controlnet,
    ip_adapter,
    lora,
    textual_inversion,
    vae,
)
from gpu_worker.pipeline.execution import offload
from gpu_worker.pipeline.families import family_of
from gpu_worker.pipeline.inputs.context import GenerationContext
from gpu_worker.pipeline.loading import task_pipelines


@contextlib.contextmanager
def attach(context: GenerationContext) -> Iterator[tuple[Any, dict[str, Any], dict[str, Any]]]:
    """Yield the pipeline with all that the request names, further arguments, and record fields.

    The loaded pipeline is restored afterwards, however the job ends. A job with adapters has its
    own pipeline, and the modules that both share are restored.

    Raises:
        Unsupported: this pipeline does not support one of them.
        ModelsError: a name is not in models.toml, or its files cannot be used.
        MissingImage: an image of the job is missing or cannot be read.
    """
    loaded, request = context.loaded, context.request
    parts: dict[str, Any] = {}
    if request.vae is not None:
        parts["vae"] = vae.load(context, request.vae)
    if request.controlnets:
        parts["controlnet"] = controlnet.load(context)
    if not (parts or request.image or _has_adapters(request)):
        pipe = task_pipelines.for_request(loaded, request)
        with offload.restored_on_error(pipe), clip_skip.enabled(pipe, request):
            yield pipe, {}, _with_warnings({}, pipe, context)
        return
    pipe = task_pipelines.copy_for_request(loaded, request, **parts)
    arguments = controlnet.arguments(pipe, context)
    with contextlib.ExitStack() as stack:
        offload_mode = stack.enter_context(offload.suspended(loaded.pipe))
        stack.enter_context(lora.attach(pipe, context))
        fields = stack.enter_context(textual_inversion.attach(pipe, context))
        arguments |= stack.enter_context(ip_adapter.attach(pipe, context))
        stack.enter_context(offload.applied(pipe, offload_mode, loaded.device))
        stack.enter_context(clip_skip.enabled(pipe, request))
        yield pipe, arguments, _with_warnings(fields, pipe, context)


def _with_warnings(fields: dict[str, Any], pipe: Any, context: GenerationContext) -> dict[str, Any]:
    """Return the record fields with the warnings about the prompts, if there are any."""
    request, vocabulary = context.request, context.loaded.vocabulary
    syntax = prompt_syntax.warnings(request, weighted=family_of(pipe).weighted_prompts)
    words = [] if vocabulary is None else vocabulary.warnings(request.prompt)
    warnings = [*fields.get("warnings", []), *syntax, *words]
    return fields | ({"warnings": warnings} if warnings else {})


def _has_adapters(request: GenerationRequest) -> bool:
    return bool(request.loras or request.embeddings or request.ip_adapter)
