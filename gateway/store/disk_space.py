"""Checks whether the disk has room for another result, before a job is accepted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from gateway.errors import StorageUnavailable
from gpu_worker.contract.protocol import WorkerStatus


class DiskSpace:
    """The disk that holds the results.

    Args:
        min_free_bytes: below this no job is accepted.
        statuses: the last status of each worker; the trouble of one counts for all.
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
        """Return the bytes that are free for users; None when the disk cannot be asked."""
        try:
            filesystem = os.statvfs(self._directory)
        except OSError:
            return None
        return filesystem.f_bavail * filesystem.f_frsize

    def trouble(self) -> str | None:
        """Return why a result could not be stored now, or None."""
        for status in self._statuses():
            if status is not None and status.trouble:
                return status.trouble
        free = self.free_bytes()
        if free is None:
            return "the disk that holds the results cannot be reached"
        if free < self._min_free_bytes:
            return (
                f"the disk has {free >> 20} MiB free, less than the {self._min_free_bytes >> 20} "
                "of SDE_MIN_FREE_MIB"
            )
        return None

    def check(self) -> None:
        """Raises StorageUnavailable when there is trouble."""
        trouble = self.trouble()
        if trouble is not None:
            raise StorageUnavailable(trouble)
