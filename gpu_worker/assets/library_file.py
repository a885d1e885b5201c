"""models.toml as it stands on the disk now: read again when it has changed.

A file that is not as it must be is told once, and what it said before goes on.
"""

from __future__ import annotations

import logging
from pathlib import Path

from gpu_worker.assets import model_library
from gpu_worker.assets.model_library import Library, ModelsError
from gpu_worker.contract.validation_errors import error_text

log = logging.getLogger(__name__)


class LibraryFile:
    """Not thread-safe. `library` is what it said when it was last sound; `error`, what is wrong
    with it since."""

    def __init__(self, path: Path) -> None:
        """Raises ModelsError, OSError: at the start nothing was said before."""
        self._path = path
        self._stamp = self._now()
        self.library: Library = model_library.read(path)
        self.error: str | None = None

    def reread(self) -> bool:
        """Whether it has changed since the last look; it is read then."""
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
        """Return what changes with the file; None when there is no file."""
        try:
            info = self._path.stat()
        except OSError:
            return None
        return info.st_ino, info.st_size, info.st_mtime_ns
