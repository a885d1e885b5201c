"""Defines every refusal of the gateway, with its HTTP status and title."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from gpu_worker.contract.validation_errors import MAX_ERRORS, join_errors


class RequestRefused(Exception):
    """The gateway refuses a request.

    `status` and `title` go into its problem document (RFC 9457). `retry_after_s` is the number of
    seconds after which the client may try again; None if that is unknown.
    """

    status: ClassVar[int]
    title: ClassVar[str]
    retry_after_s: int | None = None

    @property
    def detail(self) -> str:
        """Return one sentence for the client."""
        text = str(self)
        return (
            text if self.retry_after_s is None else f"{text}; try again in {self.retry_after_s} s"
        )

    @property
    def further(self) -> dict[str, Any]:
        """Return members of the problem document beside type, title, status and detail."""
        return {}


class QueueFull(RequestRefused):
    """No worker is idle and the queue is full."""

    status, title = 429, "Not available"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            "the service cannot accept a generation now: no worker is idle and the queue is full"
        )
        self.retry_after_s = retry_after_s


class NoWorker(RequestRefused):
    """No worker answers, or none could load its model."""

    status, title = 503, "No worker"

    def __init__(self, retry_after_s: int, load_error: str | None = None) -> None:
        message = "no GPU worker answers; a worker that died is restarted"
        if load_error is not None:
            message = f"no worker could load its model: {load_error}"
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StorageUnavailable(RequestRefused):
    """The disk rejects a write; the text gives the reason."""

    status, title = 507, "Insufficient storage"

    @classmethod
    def refusing(cls, what: str, error: OSError) -> StorageUnavailable:
        """Return the refusal for a failed write of `what`."""
        return cls(f"the disk cannot store {what}: {error.strerror or 'the write failed'}")


class InvalidRequest(RequestRefused):
    """Fields of the request are invalid.

    `errors` has the first MAX_ERRORS errors, each as `{field, message, value}`.

    Args:
        known_fields: the known fields, listed when the client sent an unknown one.
    """

    status, title = 422, "Invalid request"

    def __init__(self, errors: list[dict[str, Any]], known_fields: Iterable[str] = ()) -> None:
        super().__init__(join_errors(errors, known_fields))
        self.errors = errors[:MAX_ERRORS]

    @property
    def further(self) -> dict[str, Any]:
        """Return the errors, one an invalid field."""
        return {"errors": self.errors}


class UnknownModel(RequestRefused):
    """No worker has a model of this name."""

    status, title = 404, "Unknown model"


class NotDescribed(RequestRefused):
    """No worker has described itself yet."""

    status, title = 503, "Not described yet"


class NotLoaded(RequestRefused):
    """No worker has loaded the model, so none can unload it."""

    status, title = 409, "Not loaded"


class WorkerBusy(RequestRefused):
    """The worker is loading or busy; the client may send the command again later."""

    status, title = 409, "Worker busy"


class TooManyStreams(RequestRefused):
    """The limit of concurrent long responses is reached."""

    status, title = 503, "Too many streams"

    def __init__(self, what: str, retry_after_s: int) -> None:
        super().__init__(f"too many {what} are being sent")
        self.retry_after_s = retry_after_s


class IdempotencyKeyReused(RequestRefused):
    """A client sent an Idempotency-Key again with a different body."""

    status, title = 409, "Key reused"


class UnknownJob(RequestRefused):
    """No job has this uuid."""

    status, title = 404, "Unknown job"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"no job has the uuid {uuid}")


class ResultDeleted(RequestRefused):
    """The result of the job has been deleted."""

    status, title = 410, "Deleted"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"the result of the job {uuid} has been deleted")


class NoImage(RequestRefused):
    """The job has no such image, or does not have it yet."""

    status, title = 404, "No image"


class AlreadyEnded(RequestRefused):
    """The job has ended, so it cannot be canceled."""

    status, title = 409, "Already ended"


class NotEnded(RequestRefused):
    """The job has not ended, so it has no result to delete."""

    status, title = 409, "Not ended"
