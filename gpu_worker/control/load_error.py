"""Keeps the reason why the first model could not be loaded, over restarts of the worker."""

from __future__ import annotations

import contextlib
from pathlib import Path

MAX_CHARS = 2000


class LoadError:
    """A file with one line, which run.sh shows in the terminal. A full disk costs only this line.

    The file is gone as soon as the model has been loaded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str | None:
        """Return the reason of the last attempt, or None."""
        try:
            return self._path.read_text(encoding="utf-8").strip() or None
        except (OSError, ValueError):
            return None

    def write(self, reason: str) -> None:
        """Store a reason."""
        with contextlib.suppress(OSError):
            line = " ".join(reason.split())[:MAX_CHARS]
            self._path.write_text(f"{line}\n", encoding="utf-8")

    def clear(self) -> None:
        """Forget the reason."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
