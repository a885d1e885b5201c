"""Declares the objects within a generation request: adapters and further passes. No I/O."""

from __future__ import annotations

import functools
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gpu_worker.contract.field_types import (
    LANCZOS,
    LATENT,
    FieldMetadata,
    ImageDigest,
    Name,
    Share,
    Steps,
    Weight,
)
from gpu_worker.contract.validation_errors import MAX_ERRORS, limit_members


class Strict(BaseModel):
    """A strict model: `true` and "5" are not numbers; an unknown field and NaN are errors."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # an error may be logged, and its input has the prompt
    )

    @model_validator(mode="before")
    @classmethod
    def _sent(cls, value: object) -> object:
        """Leave out optional fields that are null, which means that they are not sent."""
        limit_members(value, len(cls.model_fields) + MAX_ERRORS)
        if not isinstance(value, dict):
            return value
        if None not in value.values():
            return value
        return {
            name: inner
            for name, inner in value.items()
            if inner is not None or name not in _optional_fields(cls)
        }


@functools.cache
def _optional_fields(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(name for name, field in model.model_fields.items() if not field.is_required())


class Lora(Strict):
    """A LoRA of models.toml and its weight."""

    name: Annotated[Name, FieldMetadata(asset="loras", help="The name of the LoRA.")]
    weight: Annotated[Weight, FieldMetadata(help="How strong the LoRA is.")] = 1.0


class ControlNet(Strict):
    """A ControlNet of models.toml and the image that it follows."""

    name: Annotated[Name, FieldMetadata(asset="controlnets", help="The name of the ControlNet.")]
    image: Annotated[ImageDigest, FieldMetadata(image=True, help="The image that it follows.")]
    conditioning_scale: Annotated[
        float, Field(ge=0.0, le=10.0), FieldMetadata(help="How closely the image follows it.")
    ] = 1.0
    guidance_start: Annotated[
        Share, FieldMetadata(help="The share of the steps after which it begins.")
    ] = 0.0
    guidance_end: Annotated[
        Share,
        Field(validate_default=True),
        FieldMetadata(help="The share of the steps after which it ends."),
    ] = 1.0

    @field_validator("guidance_end")
    @classmethod
    def _after_the_start(cls, value: float, info: ValidationInfo) -> float:
        start = info.data.get("guidance_start")
        if start is not None and value <= start:
            raise ValueError(f"must be greater than guidance_start, which is {start:g}")
        return value


class IPAdapter(Strict):
    """An IP-Adapter of models.toml and the image that it imitates."""

    name: Annotated[Name, FieldMetadata(asset="ip_adapters", help="The name of the IP-Adapter.")]
    image: Annotated[ImageDigest, FieldMetadata(image=True, help="The image that it imitates.")]
    scale: Annotated[
        float, Field(ge=0.0, le=10.0), FieldMetadata(help="How closely the image imitates it.")
    ] = 0.6


class Refiner(Strict):
    """A refiner of models.toml, and the share of the noise after which it takes over."""

    name: Annotated[Name, FieldMetadata(asset="refiners", help="The name of the refiner.")]
    switch_at: Annotated[
        float,
        Field(gt=0.0, lt=1.0),
        FieldMetadata(help="The share of the noise after which it takes over."),
    ] = 0.8


class Hires(Strict):
    """A second pass over the enlarged image of the first one.

    `upscaler` is `latent` (interpolated latents) or a name of models.toml. `strength` and
    `num_inference_steps` are those of the second pass.
    """

    scale: Annotated[
        float, Field(gt=1.0, le=4.0), FieldMetadata(help="How many times larger the image becomes.")
    ] = 2.0
    upscaler: Annotated[
        Name, FieldMetadata(asset="upscalers", help="What enlarges the first image.")
    ] = LATENT
    strength: Annotated[Share, FieldMetadata(help="How much the second pass changes.")] = 0.6
    num_inference_steps: Annotated[
        Steps | None, FieldMetadata(help="The steps of the second pass.")
    ] = None


def _no_latents(name: str) -> str:
    if name == LATENT:
        raise ValueError("must not be latent, because no latents exist: an image is upscaled")
    return name


class Upscale(Strict):
    """Upscales `image` and does nothing else: by lanczos, or by an upscaler of models.toml."""

    scale: Annotated[
        float, Field(gt=1.0, le=4.0), FieldMetadata(help="How many times larger the image becomes.")
    ] = 2.0
    upscaler: Annotated[
        Name,
        AfterValidator(_no_latents),
        FieldMetadata(asset="upscalers", help="What enlarges the image."),
    ] = LANCZOS
