"""Everything the gateway refuses, named by the fact, with its answer's status and title."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from gpu_worker.contract.validation_errors import MAX_ERRORS, join_errors


class RequestRefused(Exception):
    """A request is refused. `status` and `title` are those of its problem document (RFC 9457).

    `retry_after_s`: seconds until another try makes sense; None where that is not known.
    `further`: members of the document beside type, title, status and detail.
    """

    status: ClassVar[int]
    title: ClassVar[str]
    retry_after_s: int | None = None

    @property
    def detail(self) -> str:
        """One sentence for the client."""
        text = str(self)
        return (
            text if self.retry_after_s is None else f"{text}; try again in {self.retry_after_s} s"
        )

    @property
    def further(self) -> dict[str, Any]:
        """Nothing, unless a class says otherwise."""
        return {}


class QueueFull(RequestRefused):
    """No worker is idle and the queue has no free place."""

    status, title = 429, "Not available"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("the service is not available for a generation right now")
        self.retry_after_s = retry_after_s


class NoWorker(RequestRefused):
    """No worker can be reached."""

    status, title = 503, "No worker"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("no GPU worker can be reached; it is restarted when it has died")
        self.retry_after_s = retry_after_s


class StorageUnavailable(RequestRefused):
    """The disk does not take what would have to be written; the text says why."""

    status, title = 507, "Insufficient storage"

    @classmethod
    def refusing(cls, what: str, error: OSError) -> StorageUnavailable:
        """The disk did not take this."""
        return cls(f"the disk does not take {what}: {error.strerror or error}")


class InvalidRequest(RequestRefused):
    """Fields are wrong: `errors` are `{field, message, value}`, the first MAX_ERRORS of them.

    Args:
        known: the fields there are, for a client that sent another one.
    """

    status, title = 422, "Invalid request"

    def __init__(self, errors: list[dict[str, Any]], known: Iterable[str] = ()) -> None:
        super().__init__(join_errors(errors, known))
        self.errors = errors[:MAX_ERRORS]

    @property
    def further(self) -> dict[str, Any]:
        """The errors, one by one."""
        return {"errors": self.errors}


class UnknownModel(RequestRefused):
    """No worker has a model of this name."""

    status, title = 404, "Unknown model"


class NotDescribed(RequestRefused):
    """No worker has described itself yet."""

    status, title = 503, "Not described yet"


class NotLoaded(RequestRefused):
    """A model that no worker has in its memory cannot be unloaded."""

    status, title = 409, "Not loaded"


class WorkerBusy(RequestRefused):
    """The worker does something else; the command can be sent again when it is idle."""

    status, title = 409, "Worker busy"


class TooManyStreams(RequestRefused):
    """Every place for long responses is taken."""

    status, title = 503, "Too many streams"

    def __init__(self, what: str, retry_after_s: int) -> None:
        super().__init__(f"too many {what} are being sent")
        self.retry_after_s = retry_after_s


class IdempotencyKeyReused(RequestRefused):
    """An Idempotency-Key came with another body than the first time."""

    status, title = 409, "Key reused"


class UnknownJob(RequestRefused):
    """No job of this uuid was ever seen."""

    status, title = 404, "Unknown job"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"no job has the uuid {uuid}")


class ResultDeleted(RequestRefused):
    """The job had a result, which has been deleted."""

    status, title = 410, "Deleted"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"the result of {uuid} has been deleted")


class NoImage(RequestRefused):
    """The job has no such image, or not yet."""

    status, title = 404, "No picture"


class AlreadyEnded(RequestRefused):
    """A job that has its outcome cannot be canceled."""

    status, title = 409, "Already ended"


class NotEnded(RequestRefused):
    """A job that has no outcome yet has no result to delete."""

    status, title = 409, "Not ended"
