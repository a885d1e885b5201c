"""Declares the fields of OpenAI's image requests, and the names that other servers add to them.

Numbers may be text, because a form has nothing else. A field that is null is not sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gateway.errors import InvalidRequest
from gpu_worker.contract.field_types import MAX_IMAGES
from gpu_worker.contract.output_size import Size
from gpu_worker.contract.validation_errors import display_value, field_errors

HARMLESS = frozenset(
    {
        *("background", "complexity", "frame_count", "frame_duration_ms", "input_fidelity"),
        *("markup", "moderation", "quality", "safety_identifier", "style"),
    }
)
"""Fields of the API that change nothing here. They are accepted with any value."""

VARIATION_PROMPT = "a variation of this image"
"""The prompt of a variation, which OpenAI's API sends without one."""

MAX_LABEL_CHARS = 64

_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")


def _size(text: str) -> str:
    if text != "auto" and _SIZE.fullmatch(text) is None:
        raise ValueError("must be auto, or the width and height in pixels, such as 512x768")
    return text


def _from_text(value: object) -> object:
    """Return the list of a form's text; anything else is returned as it is."""
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        raise ValueError("must be a list as JSON") from None


class _Sent(BaseModel):
    model_config = ConfigDict(
        extra="ignore", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class LoraField(_Sent):
    """A LoRA of models.toml and its weight."""

    name: str
    weight: float = 1.0


class ImageRequest(_Sent):
    """What all three requests have in common. None means that a field is not sent."""

    prompt: str
    model: str | None = None
    n: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = 1
    size: Annotated[str, AfterValidator(_size)] = "auto"
    response_format: Literal["url", "b64_json"] | None = None
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: Annotated[int, Field(ge=0, le=100)] = 100
    stream: bool = False
    partial_images: Annotated[int, Field(ge=0, le=3)] = 0
    user: str | None = None
    negative_prompt: str | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    true_cfg_scale: float | None = None
    seed: int | None = None
    strength: float | None = None
    scheduler: str | None = None
    loras: Annotated[list[LoraField], BeforeValidator(_from_text)] | None = None

    @property
    def pixels(self) -> Size | None:
        """Return width and height; None where the model or the image decides."""
        match = _SIZE.fullmatch(self.size)
        return None if match is None else (int(match[1]), int(match[2]))

    @property
    def label(self) -> str | None:
        """Return `user` as a label of a job: at most 64 printable characters."""
        text = "".join(char for char in self.user or "" if char.isprintable())
        return text.strip()[:MAX_LABEL_CHARS].strip() or None


class VariationRequest(ImageRequest):
    """A variation has no prompt of its own."""

    prompt: str = VARIATION_PROMPT


def parse(model: type[ImageRequest], body: object) -> tuple[ImageRequest, list[str]]:
    """Return the request in a client's body, and the names of what it does not use.

    Raises:
        InvalidRequest: it names every invalid field.
    """
    if not isinstance(body, Mapping):
        error = {"field": "body", "message": "must be a JSON object", "value": None}
        raise InvalidRequest([error])
    sent = {name: value for name, value in body.items() if value is not None}
    try:
        request = model.model_validate(sent)
    except ValidationError as error:
        raise InvalidRequest(field_errors(error, model.model_fields)) from None
    return request, [name for name in sent if _is_unused(model, name, sent[name])]


def warnings_of(unused: Iterable[str]) -> list[str]:
    """Return a sentence for each name that parse() gives."""
    return [f"{display_value(name)}: this field has no effect" for name in unused]


def _is_unused(model: type[ImageRequest], name: str, value: Any) -> bool:
    if name == "background":
        return bool(value == "transparent")  # the images are opaque
    return name not in model.model_fields and name not in HARMLESS
