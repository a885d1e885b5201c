"""The pictures of accepted jobs on disk: `<uuid>/<sha256 in hex>`. One writer, the gateway.

They are there before the journal accepts the job, and go with its result. Decodes nothing.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from gpu_worker.store import durable

InputFiles = dict[str, bytes]
"""The bytes of each image by its digest, `sha256:<hex>`."""

log = logging.getLogger(__name__)

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class InputStore:
    """A folder a job. Thread-safe: each job's is written once, by whoever accepts it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, uuid: str, pictures: InputFiles) -> None:
        """Have them on disk for good; nothing is written for none.

        Raises:
            OSError: the disk does not take them, and nothing of them remains.
        """
        if not pictures:
            return
        folder = self._directory / uuid
        try:
            folder.mkdir(mode=0o700)
            for digest, content in pictures.items():
                _write(folder / digest.removeprefix("sha256:"), content)
            durable.sync_directory(folder)
            durable.sync_directory(self._directory)
        except OSError:
            self.remove(uuid)
            raise

    def read(self, uuid: str, sha256: str) -> bytes:
        """The bytes of one image as they came. Both names are canonical. Raises OSError."""
        return (self._directory / uuid / sha256).read_bytes()

    def remove(self, uuid: str) -> None:
        """The job was not accepted, or its result is gone. What cannot be removed is reported, and
        goes at the next start."""
        try:
            shutil.rmtree(self._directory / uuid)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("the pictures of %s stay for now: %s", uuid, error)

    def sweep(self, is_known: Callable[[str], bool]) -> None:
        """At the start: remove those of jobs that nobody knows, for they were never accepted, or
        their deletion was cut short."""
        try:
            names = sorted(path.name for path in self._directory.iterdir())
        except OSError as error:
            log.warning("the pictures of requests cannot be listed: %s", error)
            return
        for name in names:
            if not is_known(name):
                log.info("removing the pictures of %s, which is no job", name)
                self.remove(name)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, _NEW, 0o600)
    try:
        durable.write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
