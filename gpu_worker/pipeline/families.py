"""The table of what diffusers' classes do not say about model families.

A family is a prefix of a pipeline's class name. No other file compares the class names of
pipelines. Each workaround names the version of the library that needs it. A test in
tests/gpu_worker/test_workarounds.py fails as soon as it is no longer needed.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any, Literal

from gpu_worker.contract.field_types import Dtype

OwnSize = Literal["any", "network", "area"]
Stage = Literal["encoding", "decoding"]


@dataclass(frozen=True)
class Family:
    """The properties of a family. The defaults describe an ordinary family.

    `weighted_prompts`: its CLIP encoders accept embeddings, so weights like `(word:1.3)` work.
    `two_encoders`: prompt embeddings come from two CLIP encoders, one of them pooled.
    `skipped_layers`: the last layers that the pipeline itself skips, by the end of the name of the
    text encoder.
    `ensemble`: another UNet can make its last steps (diffusers' ensemble of experts).
    `inpaint_only`: its transformer supports only inpainting.
    `inpaint_needs_own_unet`: it inpaints with a special UNet.
    `unusable_pipelines`: classes of diffusers that fail.
    `call_arguments`: arguments with which it generates the requested size.
    `own_size`: it generates `any` size, only that of its `network`, or any size of its own `area`.
    `pixel_sample_size`: default_sample_size is in pixels, not in latent pixels.
    `makes_own_sigmas`: its scheduler makes the sigmas.
    `lacks_schedulers`: scheduler classes that fail.
    `whole_offload`: its layers cannot be offloaded one by one.
    `needs`: libraries whose absence diffusers reports as a NameError.
    `dtype`: the one of its weights on a GPU, as diffusers' own examples load them. Most families
    since 2024 leave the range of float16.
    `part_dtypes`: the parts that need another one.
    `apart`: the stages of its call, encoding and decoding, that can run apart from its steps.
    """

    prefix: str = ""
    weighted_prompts: bool = False
    two_encoders: bool = False
    skipped_layers: dict[str, int] = field(default_factory=lambda: {"": 0})
    ensemble: bool = False
    inpaint_only: bool = False
    inpaint_needs_own_unet: bool = False
    unusable_pipelines: tuple[str, ...] = ()
    call_arguments: dict[str, Any] = field(default_factory=dict)
    own_size: OwnSize = "any"
    pixel_sample_size: bool = False
    makes_own_sigmas: bool = False
    lacks_schedulers: tuple[str, ...] = ()
    whole_offload: bool = False
    needs: tuple[str, ...] = ()
    dtype: Dtype = "bfloat16"
    part_dtypes: dict[str, Dtype] = field(default_factory=dict)
    apart: tuple[Stage, ...] = ()


_WIDE_VAE: dict[str, Dtype] = {"vae": "float32"}
"""For a VAE that overflows in float16, unless its configuration has `force_upcast` = false."""

FAMILIES = (
    Family(
        "StableDiffusion3",
        skipped_layers={"": 1, "_2": 1},
        makes_own_sigmas=True,
        dtype="float16",
    ),
    Family(
        "StableDiffusionXL",
        weighted_prompts=True,
        two_encoders=True,
        skipped_layers={"": 1, "_2": 1},
        ensemble=True,
        dtype="float16",
        part_dtypes=_WIDE_VAE,
        apart=("encoding", "decoding"),
    ),
    Family(
        "StableDiffusion",
        weighted_prompts=True,
        dtype="float16",
        apart=("encoding", "decoding"),
    ),
    Family("Amused", dtype="float16"),
    Family("AuraFlow", makes_own_sigmas=True, dtype="float16", part_dtypes=_WIDE_VAE),
    # diffusers 0.42 calls scale_model_input, which this scheduler lacks.
    Family(
        "BriaPipeline",
        lacks_schedulers=("FlowMatchLCMScheduler",),
        part_dtypes=_WIDE_VAE,
    ),
    # The inpainting of diffusers 0.42 reads a setting that Chroma's transformer lacks.
    Family("Chroma", unusable_pipelines=("ChromaInpaintPipeline",)),
    Family("FluxFill", inpaint_only=True),
    # diffusers 0.42: without this argument it generates one megapixel for every requested size.
    Family("FluxKontextInpaint", call_arguments={"_auto_resize": False}),
    Family("HiDreamImagePipeline", own_size="area"),
    # diffusers 0.42: without this argument it generates the nearest of its own sizes. Its pooling
    # uses the weights of layers that it does not call, so layer hooks do not fetch them.
    Family(
        "HunyuanDiT",
        call_arguments={"use_resolution_binning": False},
        whole_offload=True,
        dtype="float16",
    ),
    Family("IFImg2Img", own_size="network", dtype="float16"),
    Family("IFInpainting", own_size="network", dtype="float16"),
    Family("IF", dtype="float16"),
    Family("Kandinsky5", inpaint_needs_own_unet=True),
    Family("Kandinsky", inpaint_needs_own_unet=True, dtype="float16"),
    # diffusers 0.42: on MPS its own decoding would convert the VAE to float16, for good.
    Family("Kolors", dtype="float16", part_dtypes=_WIDE_VAE, apart=("decoding",)),
    Family("LatentConsistencyModel", dtype="float16"),
    Family("LuminaPipeline", makes_own_sigmas=True),
    Family("OmniGenPipeline", needs=("torchvision",)),
    Family("PixArt", dtype="float16"),
    Family("PRX", pixel_sample_size=True),
    Family("SanaSprint"),
    Family("Sana", dtype="float32", part_dtypes={"text_encoder": "bfloat16"}),
)
"""The first matching prefix counts, so a longer prefix comes before a shorter one."""

_PLAIN = Family()

SINGLE_FILES = {
    "v1": "StableDiffusionPipeline",
    "v2": "StableDiffusionPipeline",
    "inpainting": "StableDiffusionInpaintPipeline",
    "inpainting_v2": "StableDiffusionInpaintPipeline",
    "xl_base": "StableDiffusionXLPipeline",
    "playground-v2-5": "StableDiffusionXLPipeline",
    "xl_inpaint": "StableDiffusionXLInpaintPipeline",
    "xl_refiner": "StableDiffusionXLImg2ImgPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "sd35_large": "StableDiffusion3Pipeline",
    "sd35_medium": "StableDiffusion3Pipeline",
    "flux-dev": "FluxPipeline",
    "flux-schnell": "FluxPipeline",
}
"""Pipelines by diffusers' names of checkpoints with more than a transformer."""

SHIPPED_CONFIGURATIONS = {
    "v1": "stable-diffusion-1",
    "inpainting": "stable-diffusion-1-inpainting",
    "v2": "stable-diffusion-2",
    "v2_base": "stable-diffusion-2-base",
    "inpainting_v2": "stable-diffusion-2-inpainting",
    "xl_base": "stable-diffusion-xl",
    "xl_inpaint": "stable-diffusion-xl-inpainting",
    "xl_refiner": "stable-diffusion-xl-refiner",
}
"""Directories of gpu_worker/model_configs/ by the same names. v2_base predicts the noise."""


def family_of(pipe: Any) -> Family:
    """Return the family of a pipeline, of its class, or of the name of a class."""
    name = pipe if isinstance(pipe, str) else class_of(pipe).__name__
    return next((each for each in FAMILIES if name.startswith(each.prefix)), _PLAIN)


def denoiser_of(pipe: Any) -> Any:
    """Return the network that predicts the noise, a UNet or a transformer; None without one."""
    unet = getattr(pipe, "unet", None)
    return getattr(pipe, "transformer", None) if unet is None else unet


def call_parameters(pipe: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of the call of a pipeline or of its class."""
    return dict(inspect.signature(pipe.__call__).parameters)


def is_guided_by_attention(cls: Any) -> bool:
    """Return whether a class is one of diffusers' perturbed attention guidance (PAG)."""
    return "PAG" in cls.__name__


def is_inpainting(cls: Any) -> bool:
    """Return whether a class is one of diffusers' inpainting pipelines."""
    return "Inpaint" in cls.__name__


def has_controlnet(cls: Any) -> bool:
    """Return whether a class includes a ControlNet."""
    return "Control" in cls.__name__


def class_of(pipe: Any) -> Any:
    """Return the class of a pipeline; a class is returned unchanged."""
    return pipe if isinstance(pipe, type) else type(pipe)
