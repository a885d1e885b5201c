"""Declares the bodies of AUTOMATIC1111's API as its own models do, and as leniently.

Null is "not sent", an unknown field is ignored, and a number may come as text. The names and the
defaults are those of `modules/api/models.py` and `modules/processing.py`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from gateway.errors import InvalidRequest
from gpu_worker.contract.validation_errors import field_errors


def _whole(value: object) -> object:
    """Return the whole part of a number, which may be text: `30`, `"30"`, `64.0`."""
    if isinstance(value, str):
        try:
            value = float(value) if not value.strip().lstrip("+-").isdigit() else int(value)
        except ValueError:
            return value
    if isinstance(value, float) and math.isfinite(value):
        return int(value)
    return value


Whole = Annotated[int, Field(ge=-(2**63), lt=2**63), BeforeValidator(_whole)]

Anything = dict[str, Any]


class Lenient(BaseModel):
    """A body of which only the fields that are declared are read."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        hide_input_in_errors=True,  # an error may be logged, and its input has the prompt
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _sent(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: inner for name, inner in value.items() if inner is not None}


class Generation(Lenient):
    """The fields that txt2img and img2img have in common.

    None stands for the model's own value: `steps`, `cfg_scale`, `width`, `height`, the sampler.
    """

    prompt: str = ""
    negative_prompt: str = ""
    styles: list[Any] = Field(default_factory=list)
    seed: Whole = -1
    subseed: Whole = -1
    subseed_strength: float = 0.0
    seed_resize_from_w: Whole = -1
    seed_resize_from_h: Whole = -1
    sampler_name: str | None = None
    sampler_index: str | None = None
    scheduler: str | None = None
    batch_size: Whole = 1
    n_iter: Whole = 1
    steps: Whole | None = None
    cfg_scale: float | None = None
    width: Whole | None = None
    height: Whole | None = None
    restore_faces: bool = False
    tiling: bool = False
    eta: float | None = None
    denoising_strength: float | None = None
    clip_skip: Whole | None = None
    model: str | None = None
    override_settings: Anything = Field(default_factory=dict)
    refiner_checkpoint: str | None = None
    refiner_switch_at: float | None = None
    script_name: str | None = None
    alwayson_scripts: Anything = Field(default_factory=dict)
    infotext: str | None = None
    force_task_id: str | None = None
    send_images: bool = True
    save_images: bool = False


class Txt2Img(Generation):
    """The body of POST /sdapi/v1/txt2img."""

    enable_hr: bool = False
    hr_scale: float = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: Whole = 0
    hr_resize_x: Whole = 0
    hr_resize_y: Whole = 0
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: str = ""
    hr_negative_prompt: str = ""


class Img2Img(Generation):
    """The body of POST /sdapi/v1/img2img. Images are base64, also with a `data:` prefix."""

    init_images: list[str] = Field(default_factory=list)
    mask: str | None = None
    resize_mode: Whole = 0
    mask_blur: Whole | None = None
    mask_blur_x: Whole = 4
    mask_blur_y: Whole = 4
    mask_round: bool = True
    inpainting_fill: Whole = 0
    inpaint_full_res: bool = True
    inpaint_full_res_padding: Whole = 0
    inpainting_mask_invert: Whole = 0
    initial_noise_multiplier: float | None = None
    include_init_images: bool = False

    @property
    def blur(self) -> tuple[int, int]:
        """Return the radius of the mask's blur in pixels: across and down."""
        if self.mask_blur is not None:
            return self.mask_blur, self.mask_blur
        return self.mask_blur_x, self.mask_blur_y


class Extras(Lenient):
    """The fields that both forms of upscaling have in common."""

    resize_mode: Whole = 0
    upscaling_resize: float = 2.0
    upscaling_resize_w: Whole = 512
    upscaling_resize_h: Whole = 512
    upscaling_crop: bool = True
    upscaler_1: str = "None"
    upscaler_2: str = "None"
    extras_upscaler_2_visibility: float = 0.0
    gfpgan_visibility: float = 0.0
    codeformer_visibility: float = 0.0


class ExtraSingle(Extras):
    """The body of POST /sdapi/v1/extra-single-image."""

    image: str = ""


class NamedImage(Lenient):
    """An image of a batch."""

    data: str = ""
    name: str = ""


class ExtraBatch(Extras):
    """The body of POST /sdapi/v1/extra-batch-images."""

    imageList: Annotated[list[NamedImage], Field(max_length=16)] = Field(default_factory=list)


class PngInfo(Lenient):
    """The body of POST /sdapi/v1/png-info."""

    image: str = ""


class InternalProgress(Lenient):
    """The body of POST /internal/progress."""

    id_task: str | None = None
    id_live_preview: Whole = -1
    live_preview: bool = True


_IMAGES = ("init_images", "mask")
_NOT_ECHOED = {*_IMAGES, "alwayson_scripts", "override_settings", "infotext", "force_task_id"}

OVERRIDES = ("sd_model_checkpoint", "sd_vae", "CLIP_stop_at_last_layers")
"""The names of `override_settings` that have an effect here."""


Body = TypeVar("Body", bound=Lenient)


def parse(model: type[Body], value: object) -> Body:
    """Return a body. Raises InvalidRequest, which names every invalid field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error, model.model_fields)) from None


def echo(body: Generation) -> dict[str, Any]:
    """Return `parameters` of the answer: the fields that are read here, without large ones."""
    fields = body.model_dump(exclude=_NOT_ECHOED)
    fields["override_settings"] = {
        name: value
        for name in OVERRIDES
        if isinstance(value := body.override_settings.get(name), str | int | float)
    }
    if isinstance(body, Img2Img):
        images = body.init_images if body.include_init_images else None
        fields |= {"init_images": images, "mask": body.mask if body.include_init_images else None}
    return fields
