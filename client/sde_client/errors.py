"""Everything the client raises. Each text is one sentence for the person in front of the screen.

SdeError
├── BadAddress            the url is no http address (also a ValueError)
├── GatewayUnreachable    nobody answers there, or the connection broke
├── NotAvailable          429: no free place now, try again after retry_after_s
│   └── WorkerUnavailable 503: no worker can take a job now
├── InvalidRequest        400, 413, 415, 422: the request itself is wrong
├── UnknownJob            404: no such uuid
├── NoImage               404: no such picture
├── UnknownModel          404: no such model
├── Conflict              409: the job's state, or an earlier request, forbids it
├── Deleted               410: it was there
├── StorageUnavailable    507: the server's disk takes nothing now
├── UnexpectedReply       an answer that the contract does not know
├── GenerationFailed      the job ended without a picture
│   └── GenerationCanceled  because somebody canceled it
├── WaitTimeout           wait() ran out of time; the job goes on
├── NotComparable         of two results one does not say what its pixels are
├── UnreadableFile        a picture that was to be sent could not be read
└── NotSaved              a picture could not be written
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class SdeError(Exception):
    """Root of the tree: catch this one to catch them all."""


class BadAddress(SdeError, ValueError):
    """The url given is not `http://host:port` or `https://host:port`."""


class GatewayUnreachable(SdeError):
    """Nobody answers at `url`, or the connection broke; `reason` is the system's word for it.

    `reached`: there was a connection, so that what was asked may have been done.
    """

    def __init__(self, url: str, reason: str, reached: bool = False) -> None:
        super().__init__(
            f"cannot reach the gateway at {url}: {reason}. "
            "Start the service there, or give another address with --url or SDE_URL."
        )
        self.url = url
        self.reason = reason
        self.reached = reached


class NotAvailable(SdeError):
    """The server takes no job now. `retry_after_s` is its own advice, in whole seconds."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class WorkerUnavailable(NotAvailable):
    """No worker can take a job: it is loading, restarting or gone."""


class InvalidRequest(SdeError):
    """The server refused what was asked. `errors` is its list of {field, message, value}."""

    def __init__(self, message: str, errors: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(message)
        self.errors = list(errors)


class UnknownJob(SdeError):
    """The server knows no job and no result of this uuid."""

    def __init__(self, uuid: str) -> None:
        super().__init__(f"there is no job {uuid!r} on this server")
        self.uuid = uuid


class NoImage(SdeError):
    """The server has no such picture: the job is unknown, has none, or has not ended."""


class UnknownModel(SdeError):
    """The server has no model of this name; the text lists those that it has."""


class Conflict(SdeError):
    """It cannot be done as things stand: the job has ended, has not ended, or the key is taken."""


class Deleted(SdeError):
    """The job had a result, which has been deleted."""


class StorageUnavailable(SdeError):
    """The server's disk does not take what would have to be written. Nothing was accepted."""


class UnexpectedReply(SdeError):
    """Not the contract's JSON, or a status that it does not know: another server, or a fault."""


class GenerationFailed(SdeError):
    """The job ended without a picture; `errors` are the server's own lines."""

    how = "failed"

    def __init__(self, uuid: str, errors: Sequence[str]) -> None:
        self.uuid = uuid
        self.errors = list(errors)
        reasons = "; ".join(errors) or "no reason was given"
        super().__init__(f"generation {uuid} {self.how}: {reasons}")


class GenerationCanceled(GenerationFailed):
    """The job was canceled, before it ran or between two of its steps."""

    how = "was canceled"


class WaitTimeout(SdeError):
    """wait() ran out of time. The job itself goes on."""

    def __init__(self, uuid: str, timeout_s: float) -> None:
        super().__init__(f"generation {uuid} has not ended within {timeout_s:g} s; it goes on")
        self.uuid = uuid


class NotComparable(SdeError):
    """The record does not say what its pixels are, and Pillow is not installed to look at them."""

    def __init__(self, uuid: str) -> None:
        super().__init__(
            f"the record of {uuid} does not say what its pixels are; "
            "install Pillow to have them compared"
        )


class UnreadableFile(SdeError):
    """A picture that was to be sent cannot be read."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"cannot read {path}: {reason}")
        self.path = path


class NotSaved(SdeError):
    """A picture could not be written to `path`; nothing half-written is left there."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot save to {path}: {reason}")
        self.path = path
