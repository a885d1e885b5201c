"""Makes pipelines of another task from a pipeline's own parts; no weights are copied.

They live for one job: nothing is kept, so nothing can leak. Knows no request.
"""

from __future__ import annotations

import importlib.util
import inspect
from typing import Any, Literal

import diffusers
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
)
from diffusers.pipelines import auto_pipeline

Task = Literal["text", "image", "inpaint"]

AUTO: dict[Task, Any] = {
    "text": AutoPipelineForText2Image,
    "image": AutoPipelineForImage2Image,
    "inpaint": AutoPipelineForInpainting,
}
MAPPINGS: dict[Task, Any] = {
    "text": auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
    "image": auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    "inpaint": auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
}
TASKS: dict[str, Task] = {"txt2img": "text", "img2img": "image", "inpaint": "inpaint"}
"""By what clients call them."""

_ENDINGS: dict[Task, str] = {"image": "Img2ImgPipeline", "inpaint": "InpaintPipeline"}
"""How diffusers calls the other tasks' classes, also where AutoPipeline does not list them."""


WANT_MASK = ("FluxFillPipeline",)
"""Transformers made for inpainting; UNets are known by their channels."""

_BROKEN = ("ChromaInpaintPipeline",)
"""Of diffusers 0.42: it asks the transformer for a setting that Chroma's has not."""


_VIDEO_PARAMETERS = (
    "num_frames",
    "video_length",
    "audio_length_in_s",
    "audio_end_in_s",
    "audio_duration",
)
_NEEDED_LIBRARIES = {"OmniGenPipeline": ("torchvision",)}
"""Libraries whose lack diffusers tells by a NameError."""


def call_parameters(pipe: Any) -> dict[str, inspect.Parameter]:
    """What the pipeline, or a class of them, can be called with."""
    return dict(inspect.signature(pipe.__call__).parameters)


def class_for(task: Task, found: Any) -> Any | None:
    """The class that does this task with the parts of another; families of one class do all."""
    if found.__name__ in WANT_MASK:
        return found if task == "inpaint" else None
    mapped = auto_pipeline._get_task_class(
        MAPPINGS[task], found.__name__, throw_error_if_not_exist=False
    )
    if mapped is not None:
        return mapped
    known = call_parameters(found)
    if task == "text":
        is_free = "image" not in known or known["image"].default is not inspect.Parameter.empty
        return found if is_free else None
    if ("image" if task == "image" else "mask_image") in known:
        return found
    named = getattr(diffusers, found.__name__.replace("Pipeline", _ENDINGS[task]), None)
    is_there = isinstance(named, type) and named.__name__ not in _BROKEN
    return named if is_there else None


def needs_mask(pipe: Any) -> bool:
    """Whether it paints anew under a mask, and does nothing else."""
    if type(pipe).__name__ in WANT_MASK:
        return True
    unet = getattr(pipe, "unet", None)
    vae = getattr(pipe, "vae", None) or getattr(pipe, "movq", None)
    if unet is None or vae is None:
        return False
    return reads_mask(unet.config.in_channels, vae.config.latent_channels)


def reads_mask(in_channels: int, latent_channels: int) -> bool:
    """UNets made for inpainting read latents, a mask and the masked latents: 4 + 1 + 4."""
    return in_channels == 2 * latent_channels + 1


def is_kandinsky(kind: str) -> bool:
    """By the name of the class: a family that paints anew with a UNet made for it alone."""
    return kind.startswith("Kandinsky")


def modes(found: Any, needs_mask: bool) -> dict[str, tuple[Task, Any]]:
    """What a model does, as a client calls it: the task and the class for it."""
    classes = {mode: (task, class_for(task, found)) for mode, task in TASKS.items()}
    left_out = {"txt2img", "img2img"} if needs_mask else set()
    if is_kandinsky(found.__name__) and not needs_mask:
        left_out = {"inpaint"}
    return {
        mode: each for mode, each in classes.items() if each[1] is not None and mode not in left_out
    }


def with_controlnet(task: Task, found: Any) -> Any | None:
    """The class of the same family and task that a ControlNet leads, as AutoPipeline names it."""
    before = ("PAG" if "PAG" in found.__name__ else "") + _ENDINGS.get(task, "Pipeline")
    name = found.__name__.replace(before, f"ControlNet{before}")
    return next((each for each in MAPPINGS[task].values() if each.__name__ == name), None)


def unsupported_reason(found: Any) -> str | None:
    """Why a class of diffusers is not one that draws pictures from words; None: it is."""
    known = call_parameters(found)
    if "prompt" not in known:
        return "reads no words"
    if any(name in known for name in _VIDEO_PARAMETERS):
        return "makes films or sound"
    if "num_inference_steps" not in known:
        return "counts its steps in a way that a request does not know"
    if "Control" in found.__name__:
        return "has a ControlNet in it; name the model and the ControlNet apart"
    for library in _NEEDED_LIBRARIES.get(found.__name__, ()):
        if importlib.util.find_spec(library) is None:
            return f"needs {library}, which is not installed"
    return None


def for_task(pipe: Any, task: Task, **parts: Any) -> Any | None:
    """A new pipeline for the task, with `parts` (vae, controlnet) instead of its own; None when
    diffusers has none of this family. `controlnet=None` takes one away."""
    try:
        new = AUTO[task].from_pipe(pipe, **parts)
    except ValueError:  # AutoPipeline knows no such class
        found = class_for(task, type(pipe))
        if parts.get("controlnet") is not None or found is None:
            return None
        new = _copy(pipe, found, parts)
    new.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    return new


def _copy(pipe: Any, found: Any, parts: dict[str, Any]) -> Any:
    components, options = found._get_signature_keys(found)
    given = {name: parts.get(name, part) for name, part in pipe.components.items()}
    given = {name: part for name, part in given.items() if name in components}
    config = {name: pipe.config[name] for name in options if name in pipe.config}
    return found(**given, **config)
