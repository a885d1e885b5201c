"""Reads what running jobs look like so far: files that their workers write."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class PreviewReader:
    """The workers' files; they come, change and go at any moment."""

    def __init__(self, directory: Path, workers: Iterable[str]) -> None:
        self._directory = directory
        self._workers = list(workers)

    def read(self, uuid: str) -> bytes | None:
        """The newest JPEG of a job; None when there is none. `uuid` is canonical."""
        for path in self._paths(uuid):
            try:
                return path.read_bytes()
            except OSError:
                continue
        return None

    def version(self, uuid: str) -> int | None:
        """Another number when there is another preview; None when there is none."""
        for path in self._paths(uuid):
            try:
                return path.stat().st_mtime_ns
            except OSError:
                continue
        return None

    def _paths(self, uuid: str) -> list[Path]:
        return [self._directory / f"{worker}.{uuid}.jpg" for worker in self._workers]
