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
        filesystem = self._filesystem()
        return None if filesystem is None else _free_bytes(filesystem)

    def _filesystem(self) -> os.statvfs_result | None:
        try:
            return os.statvfs(self._directory)
        except OSError:
            return None

    def trouble(self, new_bytes: int = 0) -> str | None:
        """Return why a result could not be stored now, or None.

        Args:
            new_bytes: of the input images that are stored before.
        """
        for status in self._statuses():
            if status is not None and status.trouble:
                return status.trouble
        filesystem = self._filesystem()
        if filesystem is None:
            return "the disk that holds the results cannot be reached"
        if filesystem.f_flag & os.ST_RDONLY:
            return "the disk that holds the results is read-only"
        free = _free_bytes(filesystem)
        if free - new_bytes < self._min_free_bytes:
            size_mib = -(-new_bytes >> 20)  # rounded up
            images = f", and the images of the request take {size_mib} MiB" if new_bytes else ""
            return (
                f"the disk has {free >> 20} MiB free{images}; "
                f"{self._min_free_bytes >> 20} must stay free (SDE_MIN_FREE_MIB)"
            )
        return None

    def check(self, new_bytes: int = 0) -> None:
        """Raises StorageUnavailable when there is trouble."""
        trouble = self.trouble(new_bytes)
        if trouble is not None:
            raise StorageUnavailable(trouble)


def _free_bytes(filesystem: os.statvfs_result) -> int:
    return filesystem.f_bavail * filesystem.f_frsize
