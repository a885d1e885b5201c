"""Everything the gateway refuses, named by the fact. gateway/problems.py maps each to HTTP."""

from __future__ import annotations


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


class KeyReused(RuntimeError):
    """An Idempotency-Key came with another body than the first time."""


class UnknownJob(KeyError):
    """No job of this uuid was ever seen."""


class DeletedJob(RuntimeError):
    """Its result was there and has been deleted."""

    def __init__(self, uuid: str) -> None:
        super().__init__(f"the result of {uuid} has been deleted")


class NoPicture(RuntimeError):
    """The job has ended without one, or not yet."""


class AlreadyEnded(RuntimeError):
    """A job that has its outcome cannot be canceled."""


class NotEnded(RuntimeError):
    """A job that has no outcome yet has no result to delete."""
