"""Defines a job, its outcome and a result record. It does no I/O."""

from __future__ import annotations

import enum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from gpu_worker.contract.request import GenerationRequest, Strict

Uuid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]

SUBMISSION = r"^[0-9a-f]{32}:[0-9a-f]{32}$"


class Source(Strict):
    """The stored image that a job upscales: the `image_index`-th, from 0, of job `uuid`."""

    uuid: Uuid
    image_index: Annotated[int, Field(ge=0)]


class Job(Strict):
    """An accepted request: `uuid` is canonical lower case, `created_time` ISO 8601 with zone.

    `sequence` counts accepted jobs; results are listed by it, whatever the clock does.
    `source` names the stored image that is its `image`, if any.
    `submission` is `<key>:<request>`, digests of the Idempotency-Key and of the request.
    """

    uuid: Uuid
    sequence: Annotated[int, Field(ge=0)]
    created_time: str
    request: GenerationRequest
    submission: Annotated[str, StringConstraints(pattern=SUBMISSION)] | None = None
    source: Source | None = None


class Outcome(enum.StrEnum):
    """How a job ends. Each accepted job has exactly one outcome."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


def result_record(
    job: Job,
    *,
    outcome: Outcome,
    errors: list[str],
    data: str | None,
    metadata: dict[str, Any],
) -> dict[str, Any]:
    """Return the record that docs/results-format.md defines: version 1's five keys, then ours.

    Args:
        data: base64 of the PNG, or None without an image.
        metadata: what the run adds: model, device, width, height, times, seconds, attempt ...
    """
    return {
        "uuid": job.uuid,
        "prompt": job.request.prompt,
        "created_time": job.created_time,
        "errors": errors,
        "data": data,
        "state": outcome.value,
        "sequence": job.sequence,
        "submission": job.submission,
        **({"source": job.source.model_dump()} if job.source is not None else {}),
        **job.request.record_fields(),
        **metadata,
        "request": job.request.non_default_fields(),
    }
