"""Text to image, image to image, or inpainting: the pipeline, and the arguments of its call."""

from __future__ import annotations

import inspect
from typing import Any

from gpu_worker.contract import checks
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.loading import task_pipelines
from gpu_worker.pipeline.loading.loaded_model import LoadedModel, NotSupported
from gpu_worker.pipeline.loading.task_pipelines import Task
from gpu_worker.pipeline.sampling.canvas import Canvas
from gpu_worker.pipeline.schedulers import catalog

FIELDS = (
    "negative_prompt",
    "num_inference_steps",
    "guidance_scale",
    "width",
    "height",
    "clip_skip",
    "eta",
    "guidance_rescale",
    "image",
    "mask_image",
    "strength",
)
"""Those of a request that a pipeline's call may know, under the same name."""

RESOLVED = ("num_inference_steps", "guidance_scale", "strength")
"""What a picture's record says even if nobody asked: the pipeline's own value then."""

WHAT: dict[Task, str] = {
    "text": "makes no pictures from words alone; it needs image and mask_image",
    "image": "makes no pictures from a picture alone",
    "inpaint": "paints no part of a picture anew",
}


def task_of(request: GenerationRequest) -> Task:
    """What a request wants made."""
    if request.image is None:
        return "text"
    return "image" if request.mask_image is None else "inpaint"


def pipeline_for(loaded: LoadedModel, request: GenerationRequest, **parts: Any) -> Any:
    """The pipeline that this request needs: the loaded one, or a new one of the loaded one's
    parts, with `parts` (vae, controlnet) instead of its own.

    Raises:
        NotSupported: there is none of this family.
    """
    task = task_of(request)
    if task != "inpaint" and task_pipelines.needs_mask(loaded.pipe):
        field, value = ("image", request.image) if task == "image" else ("prompt", request.prompt)
        raise NotSupported(field, value, loaded.pipe, WHAT["text"])
    kind, needs_mask = type(loaded.pipe).__name__, task_pipelines.needs_mask(loaded.pipe)
    if task == "inpaint" and task_pipelines.is_kandinsky(kind) and not needs_mask:
        why = "paints anew with a UNet made for it alone"
        raise NotSupported("mask_image", request.mask_image, loaded.pipe, why)
    own = task_pipelines.call_parameters(loaded.pipe)
    if task == "text" and not parts and not _is_required(own.get("image")):
        return loaded.pipe
    pipe = task_pipelines.for_task(loaded.pipe, task, **parts)
    if pipe is None and parts.get("controlnet") is not None:
        names = [net.name for net in request.controlnets]
        raise NotSupported("controlnets", names, loaded.pipe, "takes no ControlNet for this")
    if pipe is None:
        field = {"text": "prompt", "image": "image", "inpaint": "mask_image"}[task]
        raise NotSupported(field, getattr(request, field), loaded.pipe, WHAT[task])
    return pipe


def copy_of(loaded: LoadedModel, request: GenerationRequest, **parts: Any) -> Any:
    """As `pipeline_for`, but never the loaded one itself: what a job sets in it goes with it."""
    pipe = pipeline_for(loaded, request, **parts)
    return task_pipelines.for_task(pipe, "text") if pipe is loaded.pipe else pipe


def _is_required(parameter: inspect.Parameter | None) -> bool:
    return parameter is not None and parameter.default is inspect.Parameter.empty


def build(
    loaded: LoadedModel, pipe: Any, request: GenerationRequest, canvas: Canvas
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the pipeline is called with, but prompts, adapters, generator and callback; and what
    the record says of it.

    Raises:
        NotSupported: a field that this pipeline does not know.
    """
    known = task_pipelines.call_parameters(pipe)
    asked = {
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
        "clip_skip": request.clip_skip,
        "eta": request.eta,
        "guidance_rescale": request.guidance_rescale,
        "strength": request.strength,
    }
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    for name in (*given, *(["negative_prompt"] if request.negative_prompt else [])):
        if name not in known:
            takes = ", ".join(field for field in FIELDS if field in known)
            raise NotSupported(name, getattr(request, name), pipe, f"takes only {takes}")
    _check_eta(pipe, request)
    for name in ("num_inference_steps", "guidance_scale"):
        default = getattr(loaded.defaults, name)
        if name in known and default is not None:
            given.setdefault(name, default)
    pictures = {"image": canvas.image, "mask_image": canvas.mask}
    sizes = {"width": canvas.width, "height": canvas.height}
    given |= {name: value for name, value in pictures.items() if value is not None}
    given |= {name: value for name, value in sizes.items() if name in known}
    given |= _size_arguments(pipe, known, canvas)
    if "intermediate_timesteps" in known and given.get("num_inference_steps", 2) != 2:
        given["intermediate_timesteps"] = None  # Sana Sprint's own are for two steps
    _check_own_size(loaded, pipe, request, canvas)
    resolved = {
        name: given.get(name, known[name].default if name in known else None) for name in RESOLVED
    }
    if canvas.image is None:
        del resolved["strength"]
    else:
        _check_strength(pipe, resolved)
    return given, resolved


def _size_arguments(pipe: Any, known: dict[str, Any], canvas: Canvas) -> dict[str, Any]:
    """Two families draw another size than they are asked for, without a word, unless told not to:
    Flux Kontext one megapixel, HunyuanDiT the nearest of its own."""
    if "max_area" in known:
        given: dict[str, Any] = {"max_area": canvas.width * canvas.height}
        if "mask_image" in known:
            given["_auto_resize"] = False  # this one draws at the size of its picture
        return given
    is_hunyuan = type(pipe).__name__.startswith("HunyuanDiT")
    return {"use_resolution_binning": False} if is_hunyuan else {}


def _check_own_size(
    loaded: LoadedModel, pipe: Any, request: GenerationRequest, canvas: Canvas
) -> None:
    """Two families draw at a size of their own: DeepFloyd IF brings every picture to its network's,
    HiDream every width and height to the area of its own."""
    name = type(pipe).__name__
    if name in ("IFImg2ImgPipeline", "IFInpaintingPipeline"):
        why = "draws at the size of its network alone"
    elif name == "HiDreamImagePipeline" and not _has_area(canvas, loaded.default_side_px()):
        why = f"draws pictures of the area of {loaded.default_side_px()} pixels squared alone"
    else:
        return
    for side in ("width", "height"):
        if getattr(request, side) is not None:
            raise NotSupported(side, getattr(request, side), pipe, why)


def _has_area(canvas: Canvas, side: int) -> bool:
    """Within what a side's rounding makes of it."""
    return abs(canvas.width * canvas.height / side**2 - 1) < 0.05


def _check_eta(pipe: Any, request: GenerationRequest) -> None:
    cls = type(pipe.scheduler)
    if request.eta is None or catalog.knows_eta(cls):
        return
    why = f"has the scheduler {cls.__name__}, which knows none (DDIMScheduler does)"
    raise NotSupported("eta", request.eta, pipe, why)


def _check_strength(pipe: Any, resolved: dict[str, Any]) -> None:
    """Fewer than one step is an error deep inside of diffusers."""
    strength, steps = resolved["strength"], resolved["num_inference_steps"]
    if strength is None or steps is None:
        return
    if checks.makes_no_step(strength, steps, type(pipe.scheduler).__name__):
        raise NotSupported("strength", strength, pipe, checks.NO_STEP.format(steps=steps))
