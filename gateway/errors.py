"""Everything the gateway refuses, named by the fact. gateway/http/problems.py maps each to HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpu_worker.contract.validation_errors import MAX_ERRORS, display_value, join_errors


class QueueFull(RuntimeError):
    """No worker is idle and no place is left to wait."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("the service is not available for a generation right now")
        self.retry_after_s = retry_after_s


class NoWorker(RuntimeError):
    """No worker can be reached."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("no GPU worker can be reached; it is restarted when it has died")
        self.retry_after_s = retry_after_s


class StorageUnavailable(RuntimeError):
    """The disk does not take what would have to be written; the text says why."""

    @classmethod
    def refusing(cls, what: str, error: OSError) -> StorageUnavailable:
        """It did not take this."""
        return cls(f"the disk does not take {what}: {error.strerror or error}")


class InvalidRequest(ValueError):
    """Fields are wrong: `faults` are `{field, message, value}`, the first MAX_FAULTS of them.

    Args:
        known: the fields there are, for who sent one that there is not.
    """

    def __init__(self, faults: list[dict[str, Any]], known: Iterable[str] = ()) -> None:
        super().__init__(join_errors(faults, known))
        self.faults = faults[:MAX_ERRORS]


class UnsupportedField(ValueError):
    """No worker can do what a field asks for, or not with this value; the text says what it can."""

    def __init__(self, field: str, value: object, sentence: str) -> None:
        super().__init__(f"{field}: {sentence} (got {display_value(value)})")
        self.field, self.value, self.sentence = field, value, sentence


class UnknownModel(KeyError):
    """No worker has a model of this name."""


class NotDescribed(RuntimeError):
    """No worker has said yet what it can do."""


class NotLoaded(RuntimeError):
    """A model that no worker has in its memory cannot leave it."""


class WorkerBusy(RuntimeError):
    """It does something else, and is asked again when it is idle."""


class TooManyStreams(RuntimeError):
    """Every place for replies that take long is taken."""

    def __init__(self, what: str, retry_after_s: int) -> None:
        super().__init__(f"too many {what} are being sent")
        self.retry_after_s = retry_after_s


class IdempotencyKeyReused(RuntimeError):
    """An Idempotency-Key came with another body than the first time."""


class UnknownJob(KeyError):
    """No job of this uuid was ever seen."""


class ResultDeleted(RuntimeError):
    """Its result was there and has been deleted."""

    def __init__(self, uuid: str) -> None:
        super().__init__(f"the result of {uuid} has been deleted")


class NoImage(RuntimeError):
    """The job has ended without one, or not yet."""


class AlreadyEnded(RuntimeError):
    """A job that has its outcome cannot be canceled."""


class NotEnded(RuntimeError):
    """A job that has no outcome yet has no result to delete."""
