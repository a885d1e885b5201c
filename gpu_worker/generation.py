"""What a job, its outcome and a result record are. A leaf; does no I/O."""

from __future__ import annotations

import enum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from gpu_worker.request import GenerationRequest, Strict

SUBMISSION = r"^[0-9a-f]{32}:[0-9a-f]{32}$"


class Job(Strict):
    """An accepted request: `uuid` is canonical lower case, `created_time` ISO 8601 with zone.

    `sequence` counts accepted jobs: results are listed by it, whatever the clock does.
    `submission` is `<key>:<request>`, digests of the Idempotency-Key and of what came with it.
    """

    uuid: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    sequence: Annotated[int, Field(ge=0)]
    created_time: str
    request: GenerationRequest
    submission: Annotated[str, StringConstraints(pattern=SUBMISSION)] | None = None


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
    return {
        "uuid": job.uuid,
        "prompt": job.request.prompt,
        "created_time": job.created_time,
        "errors": errors,
        "data": data,
        "state": outcome.value,
        "sequence": job.sequence,
        "submission": job.submission,
        **job.request.asked(),
        **facts,
        "request": job.request.given(),
    }
