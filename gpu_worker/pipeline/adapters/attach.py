"""LoRA, textual inversion, IP-Adapter, ControlNet and another VAE for one job, and off again.

Each has a file of its own; this one puts them together, in the order that offload needs.
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
from gpu_worker.pipeline.families import family_of
from gpu_worker.pipeline.loading import offload, task_pipelines
from gpu_worker.pipeline.sampling.context import GenerationContext


@contextlib.contextmanager
def attach(context: GenerationContext) -> Iterator[tuple[Any, dict[str, Any], dict[str, Any]]]:
    """The pipeline to call, with everything that the request names, and further arguments,
    and record fields.

    The loaded pipeline is as before afterwards, whatever ends the job: a job that names something
    has a pipeline of its own, and what is shared with it is put back.

    Raises:
        Unsupported: this pipeline does not take one of them.
        ModelsError: models.toml does not know one, or its files are not as they must be.
        MissingImage: an image of the job is gone or cannot be read.
    """
    loaded, request = context.loaded, context.request
    parts: dict[str, Any] = {}
    if request.vae is not None:
        parts["vae"] = vae.load(context, request.vae)
    if request.controlnets:
        parts["controlnet"] = controlnet.load(context)
    if not (parts or request.image or _names_something(request)):
        pipe = task_pipelines.for_request(loaded, request)
        with offload.restored_on_error(pipe), clip_skip.enabled(pipe, request):
            yield pipe, {}, _with_warnings({}, pipe, request)
        return
    pipe = task_pipelines.copy_for_request(loaded, request, **parts)
    arguments = controlnet.arguments(pipe, context)
    with contextlib.ExitStack() as stack:
        mode = stack.enter_context(offload.suspended(loaded.pipe))
        stack.enter_context(lora.attach(pipe, context))
        fields = stack.enter_context(textual_inversion.attach(pipe, context))
        arguments |= stack.enter_context(ip_adapter.attach(pipe, context))
        stack.enter_context(offload.applied(pipe, mode, loaded.device))
        stack.enter_context(clip_skip.enabled(pipe, request))
        yield pipe, arguments, _with_warnings(fields, pipe, request)


def _with_warnings(fields: dict[str, Any], pipe: Any, request: GenerationRequest) -> dict[str, Any]:
    """The record fields, with the warnings of the prompts' syntax; no key where there is none."""
    syntax = prompt_syntax.warnings(request, weighted=family_of(pipe).weighted_prompts)
    warnings = [*fields.get("warnings", []), *syntax]
    return fields | ({"warnings": warnings} if warnings else {})


def _names_something(request: GenerationRequest) -> bool:
    return bool(request.loras or request.embeddings or request.ip_adapter)
