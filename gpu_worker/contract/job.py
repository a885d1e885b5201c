"""Defines a job, its outcome and a result record. It does no I/O."""

from __future__ import annotations

import enum
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from gpu_worker.contract.field_types import FieldMetadata
from gpu_worker.contract.request import GenerationRequest, Strict

UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

Uuid = Annotated[str, StringConstraints(pattern=UUID)]

SUBMISSION = r"^[0-9a-f]{32}:[0-9a-f]{32}$"


def _printable(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("must be 1 to 64 printable characters, and not only spaces")
    return text


Label = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_printable)]


class Labels(Strict):
    """What a client calls a job. Labels change nothing of the image and can be searched for."""

    batch_id: Annotated[
        Label | None, FieldMetadata(help="A label that the jobs of one batch have in common.")
    ] = None
    client_name: Annotated[
        Label | None, FieldMetadata(help="The name of the client that sends the job.")
    ] = None


MAX_WARNINGS, MAX_WARNING_CHARS = 64, 300

JobWarning = Annotated[str, StringConstraints(max_length=MAX_WARNING_CHARS)]

MAX_PARTIAL_IMAGES = 3
"""The most images of its denoising that a job shows for each of its images."""


class Source(Strict):
    """The stored image that a job upscales: the `image_index`-th, from 0, of job `uuid`."""

    uuid: Uuid
    image_index: Annotated[int, Field(ge=0)]


class Job(Strict):
    """An accepted request: `uuid` is canonical lower case, `created_time` ISO 8601 with zone.

    `sequence` counts accepted jobs; results are listed by it, whatever the clock does.
    `source` names the stored image that is its `image`, if any.
    `submission` is `<key>:<request>`, digests of the Idempotency-Key and of the request.
    `owner` names the key that sent it, if any.
    `batch_id` and `client_name` are the labels that its client chose, if any.
    `partial_images` is how often each image is decoded while it is denoised, for a client that
    watches it.
    `warnings` are sentences about what its client asked for and does not get.
    """

    uuid: Uuid
    sequence: Annotated[int, Field(ge=0, lt=10**18)]
    created_time: str
    request: GenerationRequest
    submission: Annotated[str, StringConstraints(pattern=SUBMISSION)] | None = None
    source: Source | None = None
    owner: Annotated[str, StringConstraints(max_length=64)] | None = None
    batch_id: Label | None = None
    client_name: Label | None = None
    partial_images: Annotated[int, Field(ge=0, le=MAX_PARTIAL_IMAGES)] = 0
    warnings: Annotated[list[JobWarning], Field(max_length=MAX_WARNINGS)] = Field(
        default_factory=list
    )

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels that are set."""
        both = {"batch_id": self.batch_id, "client_name": self.client_name}
        return {name: text for name, text in both.items() if text is not None}


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
            Its warnings follow those of the job.
    """
    warnings = [*job.warnings, *metadata.get("warnings", [])]
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
        **({"owner": job.owner} if job.owner is not None else {}),
        **job.labels,
        **job.request.record_fields(),
        **metadata,
        **({"warnings": warnings} if warnings else {}),
        "request": job.request.non_default_fields(),
    }
