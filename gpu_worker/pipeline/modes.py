"""Text to image, image to image, or inpainting: the pipeline class and its arguments."""

from __future__ import annotations

from typing import Any

from gpu_worker.pipeline.inputs import Inputs
from gpu_worker.pipeline.loaded import Loaded, NotSupported
from gpu_worker.request import GenerationRequest


def pipeline_for(loaded: Loaded, request: GenerationRequest) -> Any:
    """The pipeline that this request needs, of the loaded one's parts.

    Raises:
        NotSupported: there is none of this family.
    """
    if request.image is not None:
        raise NotSupported("image", request.image, loaded.pipe, "makes pictures from text only")
    return loaded.pipe


def arguments(
    loaded: Loaded, pipe: Any, request: GenerationRequest, inputs: Inputs
) -> dict[str, Any]:
    """What the pipeline is called with, but prompts, generator and callback.

    Raises:
        NotSupported: a field that this pipeline does not know.
    """
    side = loaded.default_side_px()
    given: dict[str, Any] = {
        "width": request.width or side,
        "height": request.height or side,
    }
    steps = request.num_inference_steps or loaded.defaults.num_inference_steps
    if steps is not None:
        given["num_inference_steps"] = steps
    guidance = request.guidance_scale
    if guidance is None:
        guidance = loaded.defaults.guidance_scale
    if guidance is not None:
        given["guidance_scale"] = guidance
    return given
