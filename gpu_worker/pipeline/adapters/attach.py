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
from gpu_worker.pipeline.loading.asset_files import AssetFiles
from gpu_worker.pipeline.loading.loaded_model import LoadedModel
from gpu_worker.pipeline.sampling import call_arguments
from gpu_worker.pipeline.sampling.canvas import Canvas
from gpu_worker.pipeline.sampling.input_images import InputImages


@contextlib.contextmanager
def attach(
    loaded: LoadedModel,
    request: GenerationRequest,
    inputs: InputImages,
    shelf: AssetFiles,
    canvas: Canvas,
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
        parts["vae"] = vae.load(loaded, request.vae, shelf)
    if request.controlnets:
        parts["controlnet"] = controlnet.load(loaded, request, shelf)
    if not (parts or request.image or _names_something(request)):
        pipe = call_arguments.pipeline_for(loaded, request)
        with placement.restored_on_error(pipe), clip_skip.enabled(pipe, request):
            yield pipe, {}
        return
    pipe = call_arguments.copy_of(loaded, request, **parts)
    more = controlnet.arguments(pipe, request, inputs, canvas)
    with contextlib.ExitStack() as stack:
        offload = stack.enter_context(placement.suspended(loaded.pipe))
        stack.enter_context(lora.attach(pipe, request, shelf))
        stack.enter_context(textual_inversion.attach(pipe, request, shelf))
        more |= stack.enter_context(ip_adapter.attach(pipe, request, inputs, shelf))
        stack.enter_context(placement.applied(pipe, offload, loaded.device))
        stack.enter_context(clip_skip.enabled(pipe, request))
        yield pipe, more


def _names_something(request: GenerationRequest) -> bool:
    return bool(request.loras or request.embeddings or request.ip_adapter)
