"""The one table of what is known of model families beside what diffusers' classes say themselves.

A family is a prefix of a pipeline's class name. No other file compares class names. Each workaround
of a library names the version that needs it; a test fails when it is not needed any more.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any, Literal

OwnSize = Literal["any", "network", "area"]


@dataclass(frozen=True)
class Family:
    """What sets a family apart. The defaults are those of a family without peculiarities.

    `weighted_prompts`: CLIP encoders that can be given embeddings, so `(word:1.3)` counts.
    `two_encoders`: prompt embeddings are those of two CLIP encoders, with a pooled one.
    `skipped_layers`: text encoders by the end of their names, and how many of their last layers the
    pipeline leaves out anyway.
    `refiner`: a refiner can make its last steps.
    `inpaint_only`: its transformer was made for inpainting. `inpaint_needs_own_unet`: it inpaints
    with a UNet made for that alone.
    `unusable_pipelines`: classes of diffusers that fail, by the version that does.
    `call_arguments`: further arguments that make it draw the size that it is asked for.
    `own_size`: the sizes it draws: `any`, its `network`'s alone, or any of its own `area`.
    `pixel_sample_size`: default_sample_size counts pixels, not latent pixels.
    `makes_own_sigmas`: leaves the sigmas to its scheduler. `lacks_schedulers`: classes that fail.
    `needs`: libraries whose lack diffusers reports by a NameError.
    """

    prefix: str = ""
    weighted_prompts: bool = False
    two_encoders: bool = False
    skipped_layers: dict[str, int] = field(default_factory=lambda: {"": 0})
    refiner: bool = False
    inpaint_only: bool = False
    inpaint_needs_own_unet: bool = False
    unusable_pipelines: tuple[str, ...] = ()
    call_arguments: dict[str, Any] = field(default_factory=dict)
    own_size: OwnSize = "any"
    pixel_sample_size: bool = False
    makes_own_sigmas: bool = False
    lacks_schedulers: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


FAMILIES = (
    Family("StableDiffusion3", skipped_layers={"": 1, "_2": 1}, makes_own_sigmas=True),
    Family(
        "StableDiffusionXL",
        weighted_prompts=True,
        two_encoders=True,
        skipped_layers={"": 1, "_2": 1},
        refiner=True,
    ),
    Family("StableDiffusion", weighted_prompts=True),
    Family("AuraFlow", makes_own_sigmas=True),
    # diffusers 0.42: its scheduler is asked for scale_model_input, which this one has not.
    Family("BriaPipeline", lacks_schedulers=("FlowMatchLCMScheduler",)),
    # diffusers 0.42: its inpainting asks the transformer for a setting that Chroma's has not.
    Family("Chroma", unusable_pipelines=("ChromaInpaintPipeline",)),
    Family("FluxFill", inpaint_only=True),
    # Without this it draws one megapixel, whatever the size that it is asked for.
    Family("FluxKontextInpaint", call_arguments={"_auto_resize": False}),
    Family("HiDreamImagePipeline", own_size="area"),
    # Without this it draws the nearest of its own sizes.
    Family("HunyuanDiT", call_arguments={"use_resolution_binning": False}),
    Family("IFImg2Img", own_size="network"),
    Family("IFInpainting", own_size="network"),
    Family("Kandinsky", inpaint_needs_own_unet=True),
    Family("LuminaPipeline", makes_own_sigmas=True),
    Family("OmniGenPipeline", needs=("torchvision",)),
    Family("PRX", pixel_sample_size=True),
)
"""The first whose prefix fits counts: the longer prefix stands first."""

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
"""Pipelines by diffusers' names of checkpoints: those whose file holds more than a transformer."""


def family_of(pipe: Any) -> Family:
    """The family of a pipeline, of a class of them, or of a class's name."""
    name = pipe if isinstance(pipe, str) else class_of(pipe).__name__
    return next((each for each in FAMILIES if name.startswith(each.prefix)), _PLAIN)


def call_parameters(pipe: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a pipeline's call, or of a class's."""
    return dict(inspect.signature(pipe.__call__).parameters)


def class_of(pipe: Any) -> Any:
    """The class of a pipeline; a class is its own."""
    return pipe if isinstance(pipe, type) else type(pipe)
