"""Reads models.toml again when it has changed.

An invalid file is reported once, and the previous content stays valid.
"""

from __future__ import annotations

import logging
from pathlib import Path

from gpu_worker.assets import model_library
from gpu_worker.assets.model_library import Library, ModelsError
from gpu_worker.contract.validation_errors import error_text

log = logging.getLogger(__name__)


class LibraryFile:
    """The models.toml of a worker. It is not thread-safe.

    `library` is the last valid content. `error` says what is wrong with the file since then.
    """

    def __init__(self, path: Path) -> None:
        """Read the file for the first time. Raises ModelsError and OSError."""
        self._path = path
        self._stamp = self._now()
        self.library: Library = model_library.read(path)
        self.error: str | None = None

    def reread(self) -> bool:
        """Read the file if it has changed since the last call; return whether it has."""
        now = self._now()
        if now == self._stamp:
            return False
        self._stamp = now
        try:
            self.library, self.error = model_library.read(self._path), None
            log.info("%s has changed and is read again", self._path)
        except (ModelsError, OSError) as error:
            self.error = error_text(error)
            log.error("%s; the previous version stays in use", error)
        return True

    def _now(self) -> tuple[int, int, int] | None:
        """Return what changes with the file; None if the file does not exist."""
        try:
            info = self._path.stat()
        except OSError:
            return None
        return info.st_ino, info.st_size, info.st_mtime_ns
