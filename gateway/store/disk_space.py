"""Whether the disk would take another result: asked before a job is accepted. Writes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from gateway.errors import StorageUnavailable
from gpu_worker.contract.protocol import WorkerStatus


class DiskSpace:
    """The disk that holds the results.

    Args:
        min_free_bytes: with less room than this no job is accepted.
        statuses: the workers' last words; one that waits for the disk speaks for all.
    """

    def __init__(
        self,
        directory: Path,
        min_free_bytes: int,
        statuses: Callable[[], Iterable[WorkerStatus | None]],
    ) -> None:
        self._directory = directory
        self._min_free_bytes = min_free_bytes
        self._statuses = statuses

    def free_bytes(self) -> int | None:
        """Room for a user's files; None when the disk does not even say that."""
        try:
            found = os.statvfs(self._directory)
        except OSError:
            return None
        return found.f_bavail * found.f_frsize

    def trouble(self) -> str | None:
        """Why a result could not be kept now, or None."""
        for status in self._statuses():
            if status is not None and status.trouble:
                return status.trouble
        free = self.free_bytes()
        if free is None:
            return "the disk that holds the results cannot be reached"
        if free < self._min_free_bytes:
            return (
                f"the disk has {free >> 20} MiB free, less than the {self._min_free_bytes >> 20} "
                "that SDE_MIN_FREE_MIB asks for"
            )
        return None

    def check(self) -> None:
        """Raises StorageUnavailable when there is trouble."""
        trouble = self.trouble()
        if trouble is not None:
            raise StorageUnavailable(trouble)
