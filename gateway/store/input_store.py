"""Stores the input images of accepted jobs: `<uuid>/<sha256 in hex>`. Its writer is the gateway.

They are stored before the journal accepts the job and removed with its result. None is decoded.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

from gpu_worker.contract.job import UUID
from gpu_worker.store import durable

InputFiles = dict[str, bytes]
"""The bytes of each image by its digest, `sha256:<hex>`."""

log = logging.getLogger(__name__)

_UUID = re.compile(UUID)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class InputStore:
    """One folder for each job, which is written once. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, uuid: str, images: InputFiles) -> None:
        """Store the images of a job; they are on disk when this returns.

        Raises:
            OSError: the disk refuses them; none of them remains.
        """
        if not images:
            return
        folder = self._directory / uuid
        try:
            folder.mkdir(mode=0o700)
            for digest, content in images.items():
                _write(folder / digest.removeprefix("sha256:"), content)
            durable.sync_directory(folder)
            durable.sync_directory(self._directory)
        except OSError:
            self.remove(uuid)
            raise

    def open(self, uuid: str, sha256: str) -> IO[bytes]:
        """Open one image as it came, unbuffered. Both names are canonical. Raises OSError."""
        durable.refuse_link(self._directory / uuid)
        return durable.open_plain(self._directory / uuid / sha256, 0)

    def remove(self, uuid: str) -> None:
        """Remove the images of a job. What cannot be removed is logged, and sweep() tries again."""
        try:
            shutil.rmtree(self._directory / uuid)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("the input images of %s cannot be removed yet: %s", uuid, error)

    def sweep(self, is_known: Callable[[str], bool]) -> None:
        """Remove, at the start, the images of unknown jobs: not accepted, or deleted in part.

        What has another name than a job's folder is left alone, because it is not the service's.
        """
        try:
            names = sorted(path.name for path in self._directory.iterdir())
        except OSError as error:
            log.warning("the input images cannot be listed: %s", error)
            return
        for name in names:
            if _UUID.fullmatch(name) and not is_known(name):
                log.info("the input images of %s are removed, because that job is unknown", name)
                self.remove(name)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, _NEW, 0o600)
    try:
        durable.write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
