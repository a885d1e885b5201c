"""Reads the previews and partial images of running jobs, which are files of their workers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gpu_worker.store import durable, partial_image
from gpu_worker.store.partial_image import PartialImage


class PreviewReader:
    """The workers' preview files. They appear, change and vanish at any moment."""

    def __init__(self, directory: Path, workers: Iterable[str]) -> None:
        self._directory = directory
        self._workers = list(workers)

    def read(self, uuid: str) -> bytes | None:
        """Return the newest JPEG of a job; None when there is none. `uuid` is canonical."""
        for path in self._paths(uuid):
            try:
                return durable.read_plain(path)
            except OSError:
                continue
        return None

    def version(self, uuid: str) -> int | None:
        """Return a number that changes with each preview; None when there is none."""
        for path in self._paths(uuid):
            try:
                return path.stat().st_mtime_ns
            except OSError:
                continue
        return None

    def partial_images(self, uuid: str) -> dict[PartialImage, Path]:
        """Return the files of a job's partial images that exist, in their order."""
        paths: dict[PartialImage, Path] = {}
        for worker in self._workers:
            paths |= partial_image.find(self._directory, worker, uuid)
        return dict(sorted(paths.items()))

    def _paths(self, uuid: str) -> list[Path]:
        return [self._directory / f"{worker}.{uuid}.jpg" for worker in self._workers]
