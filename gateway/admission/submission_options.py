"""Declares what a client sends beside the fields of a generation: whether it waits, and labels."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ValidationError

from gateway.errors import InvalidRequest
from gpu_worker.contract.field_types import FieldMetadata
from gpu_worker.contract.job import Labels
from gpu_worker.contract.validation_errors import field_errors


class SubmissionOptions(Labels):
    """How a job is submitted. It has no part in the image."""

    queue: Annotated[
        bool, FieldMetadata(help="Whether the job may wait in the queue for a worker.")
    ] = False


DEFAULT = SubmissionOptions()


def split(body: object) -> tuple[SubmissionOptions, object]:
    """Return the options in a client's JSON, and the rest of it.

    Raises:
        InvalidRequest: an option is invalid.
    """
    if not isinstance(body, dict):
        return DEFAULT, body
    own: dict[str, Any] = {
        name: body[name] for name in SubmissionOptions.model_fields if name in body
    }
    if not own:
        return DEFAULT, body
    rest = {name: value for name, value in body.items() if name not in own}
    try:
        return SubmissionOptions.model_validate(own), rest
    except ValidationError as error:
        raise InvalidRequest(field_errors(error, SubmissionOptions.model_fields)) from None
