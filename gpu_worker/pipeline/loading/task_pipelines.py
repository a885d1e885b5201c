"""Chooses the class for a mode, and makes pipelines of it from a pipeline's own parts.

No weights are copied. Such a pipeline lives for one job: nothing is kept, so nothing can leak.
"""

from __future__ import annotations

import importlib.util
import inspect
from typing import Any

import diffusers
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
)
from diffusers.pipelines import auto_pipeline

from gpu_worker.contract.checks import Mode, mode_of
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.pipeline.families import call_parameters, class_of, family_of
from gpu_worker.pipeline.loading.loaded_model import LoadedModel, unsupported

MODES: tuple[Mode, ...] = ("txt2img", "img2img", "inpaint")

_AUTO: dict[Mode, Any] = {
    "txt2img": AutoPipelineForText2Image,
    "img2img": AutoPipelineForImage2Image,
    "inpaint": AutoPipelineForInpainting,
}
_MAPPINGS: dict[Mode, Any] = {
    "txt2img": auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
    "img2img": auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    "inpaint": auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
}

_ENDINGS: dict[Mode, str] = {"img2img": "Img2ImgPipeline", "inpaint": "InpaintPipeline"}
"""How diffusers calls the other modes' classes, also where AutoPipeline does not list them."""

_NOT_IMAGES = (
    "num_frames",
    "video_length",
    "audio_length_in_s",
    "audio_end_in_s",
    "audio_duration",
)
"""Parameters of pipelines that make video or sound."""

_LACKS: dict[Mode, str] = {
    "txt2img": "makes no images from a prompt alone; it needs image and mask_image",
    "img2img": "makes no images from an image alone",
    "inpaint": "does no inpainting",
}


def class_for(mode: Mode, cls: Any) -> Any | None:
    """The class that does a mode with the parts of another; one class may do all modes."""
    if family_of(cls).inpaint_only:
        return cls if mode == "inpaint" else None
    mapped = auto_pipeline._get_task_class(
        _MAPPINGS[mode], cls.__name__, throw_error_if_not_exist=False
    )
    if mapped is not None:
        return mapped
    known = call_parameters(cls)
    if mode == "txt2img":
        is_free = "image" not in known or known["image"].default is not inspect.Parameter.empty
        return cls if is_free else None
    if ("image" if mode == "img2img" else "mask_image") in known:
        return cls
    name = cls.__name__.replace("Pipeline", _ENDINGS[mode])
    named = getattr(diffusers, name, None)
    is_usable = isinstance(named, type) and name not in family_of(cls).unusable_pipelines
    return named if is_usable else None


def needs_mask(pipe: Any) -> bool:
    """Whether a pipeline was made for inpainting and does nothing else."""
    if family_of(pipe).inpaint_only:
        return True
    unet = getattr(pipe, "unet", None)
    vae = getattr(pipe, "vae", None) or getattr(pipe, "movq", None)
    if unet is None or vae is None:
        return False
    return reads_mask(unet.config.in_channels, vae.config.latent_channels)


def reads_mask(in_channels: int, latent_channels: int) -> bool:
    """Whether a UNet was made for inpainting: it reads latents, a mask and the masked latents."""
    return in_channels == 2 * latent_channels + 1


def modes(cls: Any, needs_mask: bool) -> dict[Mode, Any]:
    """The modes of a model whose text-to-image class this is, with the class for each."""
    left_out: set[Mode] = {"txt2img", "img2img"} if needs_mask else set()
    if family_of(cls).inpaint_needs_own_unet and not needs_mask:
        left_out = {"inpaint"}
    classes = {mode: class_for(mode, cls) for mode in MODES if mode not in left_out}
    return {mode: found for mode, found in classes.items() if found is not None}


def with_controlnet(mode: Mode, cls: Any) -> Any | None:
    """The class of the same family and mode that a ControlNet leads, as AutoPipeline names it."""
    before = ("PAG" if "PAG" in cls.__name__ else "") + _ENDINGS.get(mode, "Pipeline")
    name = cls.__name__.replace(before, f"ControlNet{before}")
    return next((each for each in _MAPPINGS[mode].values() if each.__name__ == name), None)


def unsupported_reason(cls: Any) -> str | None:
    """Why a class of diffusers does not make images from prompts; None: it does."""
    known = call_parameters(cls)
    if "prompt" not in known:
        return "takes no prompt"
    if any(name in known for name in _NOT_IMAGES):
        return "makes video or sound"
    if "num_inference_steps" not in known:
        return "has no num_inference_steps"
    if "Control" in cls.__name__:
        return "contains a ControlNet; name the model and the ControlNet separately"
    for library in family_of(cls).needs:
        if importlib.util.find_spec(library) is None:
            return f"needs {library}, which is not installed"
    return None


def for_mode(pipe: Any, mode: Mode, **parts: Any) -> Any | None:
    """A new pipeline for the mode, made of a pipeline's parts; None when diffusers has none.

    Args:
        parts: vae and controlnet instead of its own; `controlnet=None` takes one away.
    """
    try:
        new = _AUTO[mode].from_pipe(pipe, **parts)
    except ValueError:  # AutoPipeline knows no such class
        cls = class_for(mode, class_of(pipe))
        if parts.get("controlnet") is not None or cls is None:
            return None
        new = _copy(pipe, cls, parts)
    new.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    return new


def for_request(loaded: LoadedModel, request: GenerationRequest, **parts: Any) -> Any:
    """The pipeline that a request needs: the loaded one, or a new one of the loaded one's parts.

    Args:
        parts: vae and controlnet instead of the loaded model's own.

    Raises:
        Unsupported: diffusers has none of this family.
    """
    mode = mode_of(request)
    is_required = _is_required(call_parameters(loaded.pipe).get("image"))
    if mode == "txt2img" and not parts and not is_required:
        return loaded.pipe
    pipe = for_mode(loaded.pipe, mode, **parts)
    if pipe is None and parts.get("controlnet") is not None:
        names = [net.name for net in request.controlnets]
        raise unsupported("controlnets", names, loaded.pipe, "takes no ControlNet for this")
    if pipe is None:
        field = {"txt2img": "prompt", "img2img": "image", "inpaint": "mask_image"}[mode]
        raise unsupported(field, getattr(request, field), loaded.pipe, _LACKS[mode])
    return pipe


def copy_for_request(loaded: LoadedModel, request: GenerationRequest, **parts: Any) -> Any:
    """As for_request(), but never the loaded pipeline: what a job sets in it goes with it."""
    pipe = for_request(loaded, request, **parts)
    return for_mode(pipe, "txt2img") if pipe is loaded.pipe else pipe


def _is_required(parameter: inspect.Parameter | None) -> bool:
    return parameter is not None and parameter.default is inspect.Parameter.empty


def _copy(pipe: Any, cls: Any, parts: dict[str, Any]) -> Any:
    components, options = cls._get_signature_keys(cls)
    kwargs = {name: parts.get(name, part) for name, part in pipe.components.items()}
    kwargs = {name: part for name, part in kwargs.items() if name in components}
    config = {name: pipe.config[name] for name in options if name in pipe.config}
    return cls(**kwargs, **config)
