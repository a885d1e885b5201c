"""LoRA, textual inversion, IP-Adapter, ControlNet and another VAE for one job, and off again.

Each has a file of its own; this one puts them together, in the order that offload needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.adapters import (
    clip_skip,
    controlnet,
    ip_adapter,
    lora,
    textual_inversion,
    vae,
)
from gpu_worker.pipeline.loading import offload as placement
from gpu_worker.pipeline.loading.asset_files import Shelf
from gpu_worker.pipeline.loading.loaded_model import Loaded
from gpu_worker.pipeline.sampling import call_arguments
from gpu_worker.pipeline.sampling.canvas import Canvas
from gpu_worker.pipeline.sampling.input_images import Inputs


@contextlib.contextmanager
def attached(
    loaded: Loaded, request: GenerationRequest, inputs: Inputs, shelf: Shelf, canvas: Canvas
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The pipeline to call, with everything that the request names, and further arguments.

    The loaded pipeline is as before afterwards, whatever ends the job: a job that names something
    has a pipeline of its own, and what is shared with it is put back.

    Raises:
        NotSupported: this pipeline does not take one of them.
        ModelsError: models.toml does not know one, or its files are not as they must be.
        MissingPicture: a picture of the job is gone or cannot be read.
    """
    parts: dict[str, Any] = {}
    if request.vae is not None:
        parts["vae"] = vae.loaded_for(loaded, request.vae, shelf)
    if request.controlnets:
        parts["controlnet"] = controlnet.loaded_for(loaded, request, shelf)
    if not (parts or request.image or _names_something(request)):
        pipe = call_arguments.pipeline_for(loaded, request)
        with placement.rested(pipe), clip_skip.possible(pipe, request):
            yield pipe, {}
        return
    pipe = call_arguments.copy_of(loaded, request, **parts)
    more = controlnet.arguments(pipe, request, inputs, canvas)
    with contextlib.ExitStack() as stack:
        offload = stack.enter_context(placement.lifted(loaded.pipe))
        stack.enter_context(lora.attached(pipe, request, shelf))
        stack.enter_context(textual_inversion.attached(pipe, request, shelf))
        more |= stack.enter_context(ip_adapter.attached(pipe, request, inputs, shelf))
        stack.enter_context(placement.placed(pipe, offload, loaded.device))
        stack.enter_context(clip_skip.possible(pipe, request))
        yield pipe, more


def _names_something(request: GenerationRequest) -> bool:
    return bool(request.loras or request.embeddings or request.ip_adapter)
