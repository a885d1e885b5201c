"""Declares the fields of a generation request, by diffusers' names, with units and limits.

The gateway and the worker validate a request strictly with the same models. It does no I/O.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gpu_worker.contract.field_types import (
    DEFAULT_STEPS,
    MAX_IMAGES,
    MAX_OPTIONS,
    MAX_SEED,
    ClassName,
    FieldMetadata,
    ImageDigest,
    Name,
    Option,
    OptionName,
    Share,
    Side,
    Steps,
    Text,
    not_blank,
)
from gpu_worker.contract.fields import scheduler_names
from gpu_worker.contract.fields.request_parts import (
    ControlNet,
    Hires,
    IPAdapter,
    Lora,
    Refiner,
    Strict,
    Upscale,
)
from gpu_worker.contract.validation_errors import limit_members

__all__ = [
    "ControlNet",
    "GenerationRequest",
    "Hires",
    "IPAdapter",
    "Lora",
    "Refiner",
    "Strict",
    "Upscale",
]

_PLAIN = FieldMetadata()


@functools.cache
def metadata_of(field: str, model: type[BaseModel] | None = None) -> FieldMetadata:
    """Return the metadata of a field of GenerationRequest, or of `model`."""
    info = (model or GenerationRequest).model_fields[field]
    return next((each for each in info.metadata if isinstance(each, FieldMetadata)), _PLAIN)


RANDOM_SEED = -1
"""A seed that stands for a random one, as in A1111 and others."""


_NEEDS_IMAGE = {
    "mask_image": "the image that is painted over",
    "strength": "strength says how far to depart from it",
    "upscale": "the image that is upscaled",
}


class GenerationRequest(Strict):
    """A request of a client, by diffusers' names.

    None means the model's own value: `width` and `height` (pixels), `num_inference_steps`,
    `guidance_scale`, `scheduler`, `vae`. The gateway chooses `seed` when it accepts a job without
    one, so that a second run gives the same image. Image i of a job has seed + i.
    """

    @model_validator(mode="before")
    @classmethod
    def _friendly_scheduler(cls, value: object) -> object:
        return scheduler_names.expand(value)

    prompt: Annotated[
        Text,
        AfterValidator(not_blank),
        FieldMetadata(any_pipeline=True, help="What the image should show."),
    ]
    negative_prompt: Annotated[
        Text,
        FieldMetadata(takes="call", always_recorded=True, help="What the image should not show."),
    ] = ""
    model: Annotated[
        Name | None,
        FieldMetadata(
            asset="models",
            takes="any",
            any_pipeline=True,
            help="The model that generates the image.",
        ),
    ] = None
    num_inference_steps: Annotated[
        Steps | None,
        FieldMetadata(
            takes="call",
            any_pipeline=True,
            always_recorded=True,
            help="More steps take longer and often give finer details.",
        ),
    ] = None
    guidance_scale: Annotated[
        Annotated[float, Field(ge=0.0, le=50.0)] | None,
        FieldMetadata(
            takes="call", always_recorded=True, help="How closely the image follows the prompt."
        ),
    ] = None
    true_cfg_scale: Annotated[
        Annotated[float, Field(ge=0.0, le=50.0)] | None,
        FieldMetadata(
            takes="call",
            help="How far the image departs from the negative prompt, for models like Qwen-Image.",
        ),
    ] = None
    width: Annotated[
        Side | None,
        FieldMetadata(
            takes="call",
            any_pipeline=True,
            always_recorded=True,
            help="The width of the image in pixels.",
        ),
    ] = None
    height: Annotated[
        Side | None,
        FieldMetadata(
            takes="call",
            any_pipeline=True,
            always_recorded=True,
            help="The height of the image in pixels.",
        ),
    ] = None
    seed: Annotated[
        Annotated[int, Field(ge=0, le=MAX_SEED - MAX_IMAGES)] | None,
        BeforeValidator(lambda seed: None if seed == RANDOM_SEED else seed),
        FieldMetadata(
            takes="any",
            any_pipeline=True,
            always_recorded=True,
            help="The same seed with the same settings gives the same image.",
        ),
    ] = None
    num_images_per_prompt: Annotated[
        int,
        Field(ge=1, le=MAX_IMAGES),
        FieldMetadata(
            takes="any",
            any_pipeline=True,
            help="How many images the job generates, each with the next seed.",
        ),
    ] = 1
    scheduler: Annotated[
        ClassName | None,
        FieldMetadata(
            takes="any",
            any_pipeline=True,
            help="The method that removes the noise: a class of diffusers or a name like Euler a.",
        ),
    ] = None
    scheduler_options: Annotated[
        dict[OptionName, Option],
        BeforeValidator(lambda options: limit_members(options, MAX_OPTIONS)),
        FieldMetadata(takes="any", help="Settings of the scheduler."),
    ] = Field(default_factory=dict)
    clip_skip: Annotated[
        Annotated[int, Field(ge=1, le=11)] | None,
        FieldMetadata(takes="call", help="How many of the text encoder's last layers are skipped."),
    ] = None
    eta: Annotated[
        Share | None,
        FieldMetadata(takes="call", help="The amount of noise that DDIM adds in each step."),
    ] = None
    guidance_rescale: Annotated[
        Share | None, FieldMetadata(takes="call", help="A value above 0 reduces overexposure.")
    ] = None
    image: Annotated[
        ImageDigest | None, FieldMetadata(image=True, takes="call", help="The image to begin with.")
    ] = None
    mask_image: Annotated[
        ImageDigest | None,
        FieldMetadata(
            image=True, takes="call", help="White areas are painted again, and black areas stay."
        ),
    ] = None
    strength: Annotated[
        Share | None,
        FieldMetadata(
            takes="call", help="How much the image changes: 0 changes nothing, 1 everything."
        ),
    ] = None
    loras: Annotated[
        list[Lora],
        Field(max_length=8),
        FieldMetadata(
            method="load_lora_weights", help="LoRAs, which change the style or add a subject."
        ),
    ] = Field(default_factory=list)
    controlnets: Annotated[
        list[ControlNet],
        Field(max_length=4),
        FieldMetadata(
            takes="controlnet",
            help="ControlNets, which make the image follow the lines or depth of another.",
        ),
    ] = Field(default_factory=list)
    ip_adapter: Annotated[
        IPAdapter | None, FieldMetadata(method="load_ip_adapter", help="An image to imitate.")
    ] = None
    embeddings: Annotated[
        list[Name],
        Field(max_length=8),
        FieldMetadata(
            asset="embeddings",
            method="load_textual_inversion",
            help="Learned words that the prompt uses.",
        ),
    ] = Field(default_factory=list)
    vae: Annotated[
        Name | None,
        FieldMetadata(
            asset="vaes", takes="any", help="The decoder to use in place of the model's own."
        ),
    ] = None
    hires: Annotated[
        Hires | None,
        FieldMetadata(
            takes="img2img", help="A second pass over the enlarged image, for larger images."
        ),
    ] = None
    refiner: Annotated[
        Refiner | None,
        FieldMetadata(takes="ensemble", help="A second model that makes the last steps."),
    ] = None
    upscale: Annotated[
        Upscale | None, FieldMetadata(takes="any", help="Enlarges the image and generates nothing.")
    ] = None
    step_log: Annotated[
        bool,
        FieldMetadata(takes="any", any_pipeline=True, help="Whether the record lists every step."),
    ] = False

    @field_validator("mask_image", "strength", "upscale")
    @classmethod
    def _with_image(cls, value: object, info: ValidationInfo) -> object:
        # A broken image is not in `data` and has an error of its own.
        if value is not None and info.data.get("image", "") is None:
            raise ValueError(f"needs image: {_NEEDS_IMAGE[str(info.field_name)]}")
        return value

    @field_validator("loras")
    @classmethod
    def _each_once(cls, value: list[Lora]) -> list[Lora]:
        names = [lora.name for lora in value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"names {twice} more than once")
        return value

    @property
    def steps(self) -> int:
        """Return the steps of all images, as far as the request tells, for estimates."""
        if self.upscale is not None:
            return 1
        each = self.num_inference_steps or DEFAULT_STEPS
        if self.hires is not None:
            each += self.hires.num_inference_steps or each
        return each * self.num_images_per_prompt

    def record_fields(self) -> dict[str, Any]:
        """Return the fields of a result record: those that are set, and those always recorded."""
        if self.upscale is not None:
            # Nothing is generated, so the other fields have no part in the image.
            return self.model_dump(include={"image", "upscale"})
        return {
            field: value
            for field, value in self.model_dump(exclude={"prompt"}).items()
            if metadata_of(field).always_recorded or not is_default(self, field)
        }

    def non_default_fields(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, without the prompts."""
        excluded = {"prompt", "negative_prompt"}
        if self.upscale is not None:
            excluded.add("seed")  # chosen by the gateway, and unused here
        return self.model_dump(exclude_defaults=True, exclude=excluded)


def is_default(request: GenerationRequest, field: str) -> bool:
    """Return whether a field has its default value."""
    return bool(getattr(request, field) == _default(type(request), field))


@functools.cache
def _default(model: type[BaseModel], field: str) -> Any:
    return model.model_fields[field].get_default(call_default_factory=True)


def call_fields() -> list[str]:
    """Return the fields with the name of a parameter of diffusers' calls, except images."""
    metadata = {name: metadata_of(name) for name in GenerationRequest.model_fields}
    return [name for name, each in metadata.items() if each.takes == "call" and not each.image]
