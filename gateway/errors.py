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

    def __init__(self, retry_after_s: int, owner: str | None = None) -> None:
        reason = "no worker is idle and the queue is full"
        if owner is not None:
            reason = f"the key {owner} has as many waiting jobs as SDE_QUEUE_PER_KEY allows"
        super().__init__(f"the service cannot accept a generation now: {reason}")
        self.retry_after_s = retry_after_s


class NoIdleWorker(RequestRefused):
    """No worker is idle, and the job was not sent to wait in the queue."""

    status, title = 429, "Not available"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            "the service cannot accept a generation now: no worker is idle; a job that is sent "
            'with "queue": true may wait'
        )
        self.retry_after_s = retry_after_s


class NoWorker(RequestRefused):
    """No worker answers, none can be started, or none could load its model."""

    status, title = 503, "No worker"

    def __init__(self, retry_after_s: int, reason: str | None = None) -> None:
        super().__init__(reason or "no GPU worker answers; a worker that died is restarted")
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


class NotReady(RequestRefused):
    """No worker could take a job, or the disk cannot take its result."""

    status, title = 503, "Not ready"


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


class TooManyUploads(RequestRefused):
    """The limit of requests that wait until their body or image is read is reached."""

    status, title, retry_after_s = 503, "Too many uploads", 2

    def __init__(self) -> None:
        super().__init__("too many other requests with images are being read")


class IdempotencyKeyReused(RequestRefused):
    """A client sent an Idempotency-Key again with a different body."""

    status, title = 409, "Key reused"


class HostMalformed(RequestRefused):
    """The Host header is missing, sent twice or not `name[:port]`."""

    status, title = 400, "Invalid request"

    def __init__(self, header: str | None) -> None:
        reason = "is missing" if header is None else f"{header[:80]!a} is not a name with a port"
        super().__init__(f"Host: {reason}")


class UnknownHost(RequestRefused):
    """The Host header is not a name of this service."""

    status, title = 421, "Unknown host"

    def __init__(self, header: str) -> None:
        super().__init__(
            f"Host: {header[:80]!a} is not a name of this service; SDE_ALLOWED_HOSTS adds names"
        )


class OtherOrigin(RequestRefused):
    """A web page of another origin sent the request."""

    status, title = 403, "Other origin"

    def __init__(self, header: str, value: str) -> None:
        super().__init__(
            f"{header}: {value[:80]!a} may not send this request; SDE_ALLOWED_ORIGINS admits pages"
        )


class KeyRequired(RequestRefused):
    """The request has no valid key. The text is the same for a missing and a wrong one."""

    status, title = 401, "Key required"

    def __init__(self, has_keys: bool = True) -> None:
        advice = "send it as Authorization: Bearer KEY"
        if not has_keys:
            advice = "the service has none yet; run `sde key add NAME` on its machine"
        super().__init__(f"the request needs a valid key: {advice}")


class TooManyWrongKeys(RequestRefused):
    """The address has sent too many wrong keys within a minute."""

    status, title = 429, "Too many wrong keys"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("too many wrong keys came from this address")
        self.retry_after_s = retry_after_s


class ScopeMissing(RequestRefused):
    """The key does not allow the request."""

    status, title = 403, "Not allowed"

    def __init__(self, name: str | None, scope: str) -> None:
        sender = "a request without a key" if name is None else f"the key {name}"
        super().__init__(f"{sender} may not do this; it lacks the scope {scope}")


class NotOwner(RequestRefused):
    """The job is another key's, and the key is not an admin."""

    status, title = 403, "Not allowed"

    def __init__(self, name: str | None, owner: str | None) -> None:
        sender = "a request without a key" if name is None else f"the key {name}"
        owner_text = "sent without a key" if owner is None else f"of the key {owner}"
        super().__init__(f"{sender} may not change a job {owner_text}; it lacks the scope admin")


class KeyNameTaken(RequestRefused):
    """A key has this name already."""

    status, title = 409, "Name taken"

    def __init__(self, name: str) -> None:
        super().__init__(f"name: a key has the name {name!r} already; revoke it, or choose another")


class TooManyKeys(RequestRefused):
    """The file of keys is full."""

    status, title = 409, "Too many keys"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the service has {limit} keys, which is the limit; revoke one first")


class UnknownKey(RequestRefused):
    """No key of the file has this name."""

    status, title = 404, "Unknown key"

    def __init__(self, name: str, is_in_environment: bool = False) -> None:
        reason = "no key has this name"
        if is_in_environment:
            reason = "this key is one of SDE_KEYS; remove it there and restart the service"
        super().__init__(f"name: {name[:80]!a}: {reason}")


class UnknownJob(RequestRefused):
    """No job has this uuid."""

    status, title = 404, "Unknown job"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"no job has the uuid {uuid}")


class ResultDeleted(RequestRefused):
    """The result of the job has been deleted."""

    status, title = 410, "Deleted"

    def __init__(self, name: str, *, is_image: bool = False) -> None:
        subject = f"the image {name}" if is_image else f"the result of the job {name}"
        super().__init__(f"{subject} has been deleted")


class NoImage(RequestRefused):
    """The job has no such image, or does not have it yet."""

    status, title = 404, "No image"


class AlreadyEnded(RequestRefused):
    """The job has ended, so it cannot be canceled."""

    status, title = 409, "Already ended"


class NotEnded(RequestRefused):
    """The job has not ended, so it has no result to delete."""

    status, title = 409, "Not ended"
