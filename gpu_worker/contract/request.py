"""Declares the fields of a generation request, by diffusers' names, with units and limits.

The gateway and the worker validate a request strictly with the same models. It does no I/O.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gpu_worker.contract.field_types import (
    DEFAULT_STEPS,
    LANCZOS,
    LATENT,
    MAX_IMAGES,
    MAX_LISTED,
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
    Weight,
    not_blank,
)
from gpu_worker.contract.validation_errors import MAX_ERRORS, limit_members


class Strict(BaseModel):
    """A strict model: `true` and "5" are not numbers; an unknown field and NaN are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

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


_PLAIN = FieldMetadata()


@functools.cache
def metadata_of(field: str, model: type[BaseModel] | None = None) -> FieldMetadata:
    """Return the metadata of a field of GenerationRequest, or of `model`."""
    info = (model or GenerationRequest).model_fields[field]
    return next((each for each in info.metadata if isinstance(each, FieldMetadata)), _PLAIN)


RANDOM_SEED = -1
"""A seed that stands for a random one, as in A1111 and others."""


class Lora(Strict):
    """A LoRA of models.toml and its weight."""

    name: Annotated[Name, FieldMetadata(asset="loras")]
    weight: Weight = 1.0


class ControlNet(Strict):
    """A ControlNet of models.toml and the image that it follows."""

    name: Annotated[Name, FieldMetadata(asset="controlnets")]
    image: Annotated[ImageDigest, FieldMetadata(image=True)]
    conditioning_scale: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0
    guidance_start: Share = 0.0
    guidance_end: Annotated[Share, Field(validate_default=True)] = 1.0

    @field_validator("guidance_end")
    @classmethod
    def _after_the_start(cls, value: float, info: ValidationInfo) -> float:
        start = info.data.get("guidance_start")
        if start is not None and value <= start:
            raise ValueError(f"must be greater than guidance_start, which is {start:g}")
        return value


class IPAdapter(Strict):
    """An IP-Adapter of models.toml and the image that it imitates."""

    name: Annotated[Name, FieldMetadata(asset="ip_adapters")]
    image: Annotated[ImageDigest, FieldMetadata(image=True)]
    scale: Annotated[float, Field(ge=0.0, le=10.0)] = 0.6


class Refiner(Strict):
    """A refiner of models.toml, and the share of the noise after which it takes over."""

    name: Annotated[Name, FieldMetadata(asset="refiners")]
    switch_at: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.8


class Hires(Strict):
    """A second pass over the enlarged image of the first one.

    `upscaler` is `latent` (interpolated latents) or a name of models.toml. `strength` and
    `num_inference_steps` are those of the second pass.
    """

    scale: Annotated[float, Field(gt=1.0, le=4.0)] = 2.0
    upscaler: Annotated[Name, FieldMetadata(asset="upscalers")] = LATENT
    strength: Share = 0.6
    num_inference_steps: Steps | None = None


def _no_latents(name: str) -> str:
    if name == LATENT:
        raise ValueError("must not be latent, because no latents exist: an image is upscaled")
    return name


class Upscale(Strict):
    """Upscales `image` and does nothing else: by lanczos, or by an upscaler of models.toml."""

    scale: Annotated[float, Field(gt=1.0, le=4.0)] = 2.0
    upscaler: Annotated[Name, AfterValidator(_no_latents), FieldMetadata(asset="upscalers")] = (
        LANCZOS
    )


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

    prompt: Annotated[Text, AfterValidator(not_blank), FieldMetadata(any_pipeline=True)]
    negative_prompt: Annotated[Text, FieldMetadata(takes="call", always_recorded=True)] = ""
    model: Annotated[Name | None, FieldMetadata(asset="models", takes="any", any_pipeline=True)] = (
        None
    )
    num_inference_steps: Annotated[
        Steps | None, FieldMetadata(takes="call", any_pipeline=True, always_recorded=True)
    ] = None
    guidance_scale: Annotated[
        Annotated[float, Field(ge=0.0, le=50.0)] | None,
        FieldMetadata(takes="call", always_recorded=True),
    ] = None
    width: Annotated[
        Side | None, FieldMetadata(takes="call", any_pipeline=True, always_recorded=True)
    ] = None
    height: Annotated[
        Side | None, FieldMetadata(takes="call", any_pipeline=True, always_recorded=True)
    ] = None
    seed: Annotated[
        Annotated[int, Field(ge=0, le=MAX_SEED - MAX_IMAGES)] | None,
        BeforeValidator(lambda seed: None if seed == RANDOM_SEED else seed),
        FieldMetadata(takes="any", any_pipeline=True, always_recorded=True),
    ] = None
    num_images_per_prompt: Annotated[
        int, Field(ge=1, le=MAX_IMAGES), FieldMetadata(takes="any", any_pipeline=True)
    ] = 1
    scheduler: Annotated[ClassName | None, FieldMetadata(takes="any", any_pipeline=True)] = None
    scheduler_options: Annotated[
        dict[OptionName, Option],
        BeforeValidator(lambda options: limit_members(options, MAX_OPTIONS)),
        FieldMetadata(takes="any"),
    ] = {}
    clip_skip: Annotated[Annotated[int, Field(ge=1, le=11)] | None, FieldMetadata(takes="call")] = (
        None
    )
    eta: Annotated[Share | None, FieldMetadata(takes="call")] = None
    guidance_rescale: Annotated[Share | None, FieldMetadata(takes="call")] = None
    image: Annotated[ImageDigest | None, FieldMetadata(image=True, takes="call")] = None
    mask_image: Annotated[ImageDigest | None, FieldMetadata(image=True, takes="call")] = None
    strength: Annotated[Share | None, FieldMetadata(takes="call")] = None
    loras: Annotated[
        list[Lora], Field(max_length=8), FieldMetadata(method="load_lora_weights")
    ] = []
    controlnets: Annotated[
        list[ControlNet], Field(max_length=4), FieldMetadata(takes="controlnet")
    ] = []
    ip_adapter: Annotated[IPAdapter | None, FieldMetadata(method="load_ip_adapter")] = None
    embeddings: Annotated[
        list[Name],
        Field(max_length=8),
        FieldMetadata(asset="embeddings", method="load_textual_inversion"),
    ] = []
    vae: Annotated[Name | None, FieldMetadata(asset="vaes", takes="any")] = None
    hires: Annotated[Hires | None, FieldMetadata(takes="img2img")] = None
    refiner: Annotated[Refiner | None, FieldMetadata(takes="ensemble")] = None
    upscale: Annotated[Upscale | None, FieldMetadata(takes="any")] = None
    step_log: Annotated[bool, FieldMetadata(takes="any", any_pipeline=True)] = False

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


def assets_of(request: BaseModel, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield every name of models.toml in a request: its kind, its field's path, the name."""
    for field in type(request).model_fields:
        value, kind = getattr(request, field), metadata_of(field, type(request)).asset
        values = enumerate(value) if isinstance(value, list) else [("", value)]
        for key, each in values:
            where = f"{path}{field}" + (f".{key}" if isinstance(value, list) else "")
            if isinstance(each, BaseModel):
                yield from assets_of(each, f"{where}.")
            elif kind is not None and each is not None:
                yield kind, where, each


def image_fields(
    body: object, model: type[BaseModel] | None = None, path: str = ""
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield every image in JSON of a request's shape: path, object, key.

    Args:
        body: a request as a client sent it, or a result record.
    """
    model = model or GenerationRequest
    if not isinstance(body, dict):
        return
    for field, info in model.model_fields.items():
        value = body.get(field)
        if metadata_of(field, model).image and isinstance(value, str):
            yield path + field, body, field
        inner = _inner_model(info.annotation)
        if inner is not None and isinstance(value, list):
            for index, each in enumerate(value[:MAX_LISTED]):
                yield from image_fields(each, inner, f"{path}{field}.{index}.")
        elif inner is not None:
            yield from image_fields(value, inner, f"{path}{field}.")


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model in `Model | None` or `list[Model]`."""
    for each in get_args(annotation):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None
