"""What a generation request, a job and a result record are: fields, units and limits. A leaf.

Validated strictly in the gateway and again in the worker, by the same models. Does no I/O.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

MAX_PROMPT_CHARS = 4000
"""Far beyond the 77 tokens that CLIP reads, far below what would burden the log."""

MAX_SEED = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly (RFC 8259, section 6)."""

MIN_SIDE_PX, MAX_SIDE_PX, SIDE_MULTIPLE_PX = 64, 2048, 8
"""Sides of a picture. diffusers' pipelines need multiples of 8 (their own `check_inputs`)."""

MAX_SHOWN_CHARS = 80

SUBMISSION = r"^[0-9a-f]{32}:[0-9a-f]{32}$"


def _printable(text: str) -> str:
    """Refuse what cannot be stored or confuses a terminal; keep line breaks, tabs, any script.

    Raises:
        ValueError: on a lone surrogate or a control character.
    """
    for char in text:
        if "\ud800" <= char <= "\udfff":
            raise ValueError("must not contain a lone surrogate")
        if (char < " " and char not in "\n\t\r") or char == "\x7f":
            raise ValueError(f"must not contain the control character U+{ord(char):04X}")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


Text = Annotated[str, StringConstraints(max_length=MAX_PROMPT_CHARS), AfterValidator(_printable)]
Side = Annotated[int, Field(ge=MIN_SIDE_PX, le=MAX_SIDE_PX, multiple_of=SIDE_MULTIPLE_PX)]


class _Strict(BaseModel):
    """Strict: neither `true` nor "5" is a number, an unknown field is an error, so is NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class GenerationRequest(_Strict):
    """What a client asks for, by diffusers' names.

    `width` and `height` are pixels; None means the loaded model's own size. `seed` None means that
    the gateway draws one when it accepts the job, so that a second run gives the same picture.
    """

    prompt: Annotated[Text, AfterValidator(_not_blank)]
    negative_prompt: Text = ""
    num_inference_steps: Annotated[int, Field(ge=1, le=500)] = 50
    guidance_scale: Annotated[float, Field(ge=0.0, le=50.0)] = 7.5
    width: Side | None = None
    height: Side | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None


class Job(_Strict):
    """An accepted request: `uuid` is canonical lower case, `created_time` ISO 8601 with zone.

    `sequence` counts accepted jobs: results are listed by it, whatever the clock does.
    `submission` is `<key>:<request>`, digests of the Idempotency-Key and of what came with it.
    """

    uuid: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    sequence: Annotated[int, Field(ge=0)]
    created_time: str
    request: GenerationRequest
    submission: Annotated[str, StringConstraints(pattern=SUBMISSION)] | None = None


def field_errors(error: ValidationError) -> list[dict[str, Any]]:
    """`[{field, message, value}]`, one for each fault; a long value is shortened."""
    return [
        {
            "field": ".".join(str(part) for part in fault["loc"]) or "body",
            "message": _sentence(fault),
            "value": _shown(fault),
        }
        for fault in error.errors(include_url=False)
    ]


def describe(faults: list[dict[str, Any]]) -> str:
    """One readable line: `height: Input should be a multiple of 8 (got 513)`."""
    return "; ".join(
        f"{fault['field']}: {fault['message']}"
        + ("" if fault["value"] is None else f" (got {fault['value']})")
        for fault in faults
    )


def _sentence(fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        known = ", ".join(GenerationRequest.model_fields)
        return f"is not a known field; known are {known}"
    return str(fault["msg"]).removeprefix("Value error, ")


def _shown(fault: Any) -> str | None:
    if fault["type"] == "missing":
        return None
    text = ascii(fault["input"]) if not isinstance(fault["input"], str) else repr(fault["input"])
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"


class Outcome(enum.StrEnum):
    """How a job ends; each accepted job has exactly one."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


def result_record(
    job: Job,
    *,
    outcome: Outcome,
    errors: list[str],
    data: str | None,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """The record of docs/results-format.md: the seed's five keys in its order, then ours.

    Args:
        data: base64 of the PNG, or None when there is no picture.
        facts: what the run adds: model, device, width, height, times, seconds, attempt ...
    """
    asked = job.request.model_dump(exclude={"prompt"})
    return {
        "uuid": job.uuid,
        "prompt": job.request.prompt,
        "created_time": job.created_time,
        "errors": errors,
        "data": data,
        "state": outcome.value,
        "sequence": job.sequence,
        "submission": job.submission,
        **asked,
        **facts,
    }
