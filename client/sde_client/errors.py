"""The exceptions of the client. Each message is written for the user.

SdeError
├── BadAddress              the url is not an HTTP address (also a ValueError)
├── GatewayUnreachable      no reply, or the connection broke
├── NotAvailable            429: the queue is full; retry after retry_after_s
│   └── WorkerUnavailable   503: no worker can accept a job now
├── InvalidRequest          400, 413, 415, 422: the request is invalid
├── UnknownJob              404: the uuid is unknown
├── NoImage                 404: the image does not exist
├── UnknownModel            404: the model is unknown
├── UnknownKey              404: no key has this name
├── KeyRequired             401: the service needs a valid key
├── NotAllowed              403, 421: the sender may not do this
├── Conflict                409: the job's state or an earlier request forbids it
├── Deleted                 410: the result has been deleted
├── StorageUnavailable      507: the server's disk cannot store anything now
├── UnexpectedReply         the reply is not part of the HTTP contract
├── GenerationFailed        the job ended without an image
│   └── GenerationCanceled  the job was canceled
├── WaitTimeout             wait() ran out of time; the job keeps running
├── NotComparable           the pixels of a result are unknown
├── UnreadableFile          an input image could not be read
└── NotSaved                an image could not be written
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class SdeError(Exception):
    """The base class of all errors of the client."""


class BadAddress(SdeError, ValueError):
    """The url is not `http://host:port` or `https://host:port`."""


class GatewayUnreachable(SdeError):
    """The gateway at `url` sent no reply, or the connection broke.

    `reason` is the operating system's message. `reached` is true if there was a connection, so
    that the server may have carried out the request.
    """

    def __init__(self, url: str, reason: str, reached: bool = False) -> None:
        super().__init__(
            f"cannot reach the gateway at {url}: {reason}. "
            "Start the service there, or set another address with --url or SDE_URL."
        )
        self.url = url
        self.reason = reason
        self.reached = reached


class NotAvailable(SdeError):
    """The server accepts no job now. `retry_after_s` is the server's advice in whole seconds."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class WorkerUnavailable(NotAvailable):
    """No worker can accept a job: each is loading, restarting or unreachable."""


class InvalidRequest(SdeError):
    """The server refused the request. `errors` is its list of {field, message, value}."""

    def __init__(self, message: str, errors: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.errors = list(errors)


class UnknownJob(SdeError):
    """The server has no job and no result with this uuid."""

    def __init__(self, uuid: str) -> None:
        super().__init__(f"there is no job {uuid!r} on this server")
        self.uuid = uuid


class NoImage(SdeError):
    """The image does not exist: the job is unknown, has no such image, or has not ended."""


class UnknownModel(SdeError):
    """The server has no model with this name. Its message lists the known models."""


class UnknownKey(SdeError):
    """The service has no key with this name."""


class KeyRequired(SdeError):
    """The service needs a valid key, and the request had none."""


class NotAllowed(SdeError):
    """The key lacks a scope, the job is another key's, or the service knows no such host."""


class Conflict(SdeError):
    """The job's state or an earlier request with the same key forbids the operation."""


class Deleted(SdeError):
    """The job's result has been deleted."""


class StorageUnavailable(SdeError):
    """The server's disk cannot store the request or the change; nothing was accepted."""


class UnexpectedReply(SdeError):
    """The reply does not follow the HTTP contract: another server, another version or a fault."""


class GenerationFailed(SdeError):
    """The job ended without an image. `errors` are the server's messages."""

    how = "failed"

    def __init__(self, uuid: str, errors: Sequence[str]) -> None:
        self.uuid = uuid
        self.errors = list(errors)
        reasons = "; ".join(errors) or "no reason was given"
        super().__init__(f"generation {uuid} {self.how}: {reasons}")


class GenerationCanceled(GenerationFailed):
    """The job was canceled before it ran, or between two steps."""

    how = "was canceled"


class WaitTimeout(SdeError):
    """wait() ran out of time. The job itself keeps running."""

    def __init__(self, uuid: str, timeout_s: float) -> None:
        super().__init__(
            f"generation {uuid} has not ended within {timeout_s:g} s; it keeps running"
        )
        self.uuid = uuid


class NotComparable(SdeError):
    """The record has no checksum of its pixels, and Pillow is not installed to compute one."""

    def __init__(self, uuid: str) -> None:
        super().__init__(
            f"the record of {uuid} has no pixels_sha256; install Pillow to compare its pixels"
        )


def reason_of(error: Exception) -> str:
    """Return the operating system's reason for an error, or the error's own text."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class UnreadableFile(SdeError):
    """An input image cannot be read."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"cannot read {path}: {reason}")
        self.path = path


class NotSaved(SdeError):
    """An image could not be written to `path`. No partial file is left behind."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot save to {path}: {reason}")
        self.path = path
