"""Defines the types of a request's fields, with units and limits, and a field's metadata.

It declares no request and does no I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    StringConstraints,
)

OptionName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]

MAX_OPTION = 1_000_000
"""The limit of whole numbers too: num_train_timesteps is the length of several arrays."""

_OPTION_TEXT = re.compile(r"[A-Za-z0-9_+-]{1,64}")


def _option(value: object) -> bool | int | float | str:
    """Check an option here, because a union of types would name each type as a field."""
    if isinstance(value, str):
        if not _OPTION_TEXT.fullmatch(value):
            raise ValueError("must be 1 to 64 letters, digits, and + - _")
    elif not isinstance(value, bool | int | float):
        raise ValueError("must be true, false, a number or a word")
    elif not abs(value) <= MAX_OPTION:  # NaN fails this too
        raise ValueError(f"must be a number from -{MAX_OPTION} to {MAX_OPTION}")
    return value


Option = Annotated[bool | int | float | str, PlainValidator(_option)]

MAX_PROMPT_CHARS = 4000
"""About fifty times the 77 tokens that CLIP reads at once."""


def _printable(text: str) -> str:
    """Refuse text that cannot be stored or confuses a terminal; keep line breaks and tabs.

    Raises:
        ValueError: on a lone surrogate or a control character.
    """
    for char in text:
        if "\ud800" <= char <= "\udfff":
            raise ValueError("must not contain a lone surrogate")
        if (char < " " and char not in "\n\t\r") or "\x7f" <= char <= "\x9f":
            raise ValueError(f"must not contain the control character U+{ord(char):04X}")
    return text


def not_blank(text: str) -> str:
    """Return the text. Raises ValueError if it has only white space."""
    if not text.strip():
        raise ValueError("must not be blank")
    return text


Text = Annotated[str, StringConstraints(max_length=MAX_PROMPT_CHARS), AfterValidator(_printable)]

MAX_SEED = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly (RFC 8259, section 6)."""

MIN_SIDE_PX, MAX_SIDE_PX, SIDE_MULTIPLE_PX = 64, 2048, 8
"""The sides of an image in pixels. diffusers' `check_inputs` requires multiples of 8."""

MAX_IMAGES = 16

LATENT, LANCZOS = "latent", "lanczos"
"""Upscalers without a file: interpolation of the latents, and of the pixels."""

MAX_OPTIONS = 16

MAX_LISTED = 16
"""The number of list entries that are searched for images. A longer list is refused."""

DEFAULT_STEPS = 50
"""diffusers' own for Stable Diffusion; a model of fewer steps says so in its description."""

Side = Annotated[int, Field(ge=MIN_SIDE_PX, le=MAX_SIDE_PX, multiple_of=SIDE_MULTIPLE_PX)]

Dtype = Literal["float16", "bfloat16", "float32"]
"""torch's names of the dtypes that a model's weights may have."""

MAX_STEPS = 500

Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]

Share = Annotated[float, Field(ge=0.0, le=1.0)]

Weight = Annotated[float, Field(ge=-10.0, le=10.0)]

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""What models.toml calls a file: it is looked up there, and never becomes a path."""

ImageDigest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""The digest of an input image. Over HTTP the image itself is sent as base64."""

ClassName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9]{0,63}$")]


Takes = Literal["any", "call", "img2img", "controlnet", "ensemble"]


@dataclass(frozen=True)
class FieldMetadata:
    """The properties of a field besides its type. All lists of fields are derived from these.

    `image`: the value is the digest of an input image.
    `asset`: the value is a name of this kind in models.toml.
    `takes` says which pipelines take the field. `any` stands for all of them. `call` stands for
    those whose call has a parameter of this name. The others need `img2img` with strength, a
    `controlnet` pipeline, or the `ensemble` property of the family.
    `method`: a pipeline with this method takes the field.
    `any_pipeline`: the field is not compared with the description of a model.
    `always_recorded`: a record has the field even if the request did not set it.
    `help`: one sentence for a person who fills in the field.
    """

    image: bool = False
    asset: str | None = None
    takes: Takes | None = None
    method: str | None = None
    any_pipeline: bool = False
    always_recorded: bool = False
    help: str = ""
