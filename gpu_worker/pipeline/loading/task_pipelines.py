"""Chooses the pipeline class for a mode, and creates pipelines from a loaded pipeline's parts.

It copies no weights. Such a pipeline is used for one job, so that no state can leak.
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
from gpu_worker.pipeline.execution import offload
from gpu_worker.pipeline.families import (
    call_parameters,
    class_of,
    family_of,
    has_controlnet,
    is_guided_by_attention,
)
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

_SUFFIXES: dict[Mode, str] = {"img2img": "Img2ImgPipeline", "inpaint": "InpaintPipeline"}
"""The suffixes of diffusers' classes, also of classes that AutoPipeline does not list."""

_OTHER_MEDIA = (
    "num_frames",
    "video_length",
    "audio_length_in_s",
    "audio_end_in_s",
    "audio_duration",
)
"""Parameters of pipelines that generate video or sound."""

_UNSUPPORTED_MODE: dict[Mode, str] = {
    "txt2img": "does not support text to image; send image and mask_image",
    "img2img": "does not support image to image",
    "inpaint": "does not support inpainting",
}


def class_for(mode: Mode, cls: Any) -> Any | None:
    """Return the class for a mode with the same parts, or None; one class may do all modes."""
    if family_of(cls).inpaint_only:
        return cls if mode == "inpaint" else None
    mapped = auto_pipeline._get_task_class(
        _MAPPINGS[mode], cls.__name__, throw_error_if_not_exist=False
    )
    if mapped is not None:
        return mapped
    parameters = call_parameters(cls)
    if mode == "txt2img":
        is_optional = (
            "image" not in parameters or parameters["image"].default is not inspect.Parameter.empty
        )
        return cls if is_optional else None
    if ("image" if mode == "img2img" else "mask_image") in parameters:
        return cls
    name = cls.__name__.replace("Pipeline", _SUFFIXES[mode])
    candidate = getattr(diffusers, name, None)
    is_usable = isinstance(candidate, type) and name not in family_of(cls).unusable_pipelines
    return candidate if is_usable else None


def needs_mask(pipe: Any) -> bool:
    """Return whether a pipeline supports inpainting only."""
    if family_of(pipe).inpaint_only:
        return True
    unet = getattr(pipe, "unet", None)
    vae = getattr(pipe, "vae", None) or getattr(pipe, "movq", None)
    if unet is None or vae is None:
        return False
    return reads_mask(unet.config.in_channels, vae.config.latent_channels)


def reads_mask(in_channels: int, latent_channels: int) -> bool:
    """Return whether a UNet is for inpainting: it takes latents, a mask and masked latents."""
    return in_channels == 2 * latent_channels + 1


def modes(cls: Any, needs_mask: bool) -> dict[Mode, Any]:
    """Return the modes of a model with this text-to-image class, with the class for each."""
    unsupported_modes: set[Mode] = {"txt2img", "img2img"} if needs_mask else set()
    if family_of(cls).inpaint_needs_own_unet and not needs_mask:
        unsupported_modes = {"inpaint"}
    classes = {mode: class_for(mode, cls) for mode in MODES if mode not in unsupported_modes}
    return {mode: mode_class for mode, mode_class in classes.items() if mode_class is not None}


def with_controlnet(mode: Mode, cls: Any) -> Any | None:
    """Return AutoPipeline's class for the same family and mode with a ControlNet, or None."""
    suffix = ("PAG" if is_guided_by_attention(cls) else "") + _SUFFIXES.get(mode, "Pipeline")
    name = cls.__name__.replace(suffix, f"ControlNet{suffix}")
    return next(
        (candidate for candidate in _MAPPINGS[mode].values() if candidate.__name__ == name), None
    )


def unsupported_reason(cls: Any) -> str | None:
    """Return why a class does not generate images from prompts; None if it does."""
    parameters = call_parameters(cls)
    if "prompt" not in parameters:
        return "takes no prompt"
    if any(name in parameters for name in _OTHER_MEDIA):
        return "generates video or sound"
    if "num_inference_steps" not in parameters:
        return "has no num_inference_steps"
    if has_controlnet(cls):
        return "contains a ControlNet; name the model and the ControlNet separately"
    for library in family_of(cls).needs:
        if importlib.util.find_spec(library) is None:
            return f"needs {library}, which is not installed"
    return None


def for_mode(pipe: Any, mode: Mode, **parts: Any) -> Any | None:
    """Return a new pipeline for the mode from a pipeline's parts; None when diffusers has none.

    Args:
        parts: vae and controlnet to replace its own; `controlnet=None` removes it.
    """
    try:
        new = _AUTO[mode].from_pipe(pipe, **parts)
    except ValueError:  # AutoPipeline lists no such class
        cls = class_for(mode, class_of(pipe))
        if parts.get("controlnet") is not None or cls is None:
            return None
        new = _copy(pipe, cls, parts)
    new.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    offload.share(pipe, new)
    return new


def for_request(loaded: LoadedModel, request: GenerationRequest, **parts: Any) -> Any:
    """Return the pipeline for a request: the loaded one, or a new one from its parts.

    Args:
        parts: vae and controlnet to replace the loaded model's.

    Raises:
        Unsupported: diffusers has no such pipeline for this family.
    """
    mode = mode_of(request)
    is_required = _is_required(call_parameters(loaded.pipe).get("image"))
    if mode == "txt2img" and not parts and not is_required:
        return loaded.pipe
    pipe = for_mode(loaded.pipe, mode, **parts)
    if pipe is None and parts.get("controlnet") is not None:
        names = [net.name for net in request.controlnets]
        raise unsupported(
            "controlnets", names, loaded.pipe, "does not support ControlNets in this mode"
        )
    if pipe is None:
        field = {"txt2img": "prompt", "img2img": "image", "inpaint": "mask_image"}[mode]
        raise unsupported(field, getattr(request, field), loaded.pipe, _UNSUPPORTED_MODE[mode])
    return pipe


def copy_for_request(loaded: LoadedModel, request: GenerationRequest, **parts: Any) -> Any:
    """Return the pipeline for a request, but never the loaded one, so that a job may change it."""
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
