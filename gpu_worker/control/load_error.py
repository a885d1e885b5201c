"""Keeps the reason why the first model could not be loaded, over restarts of the worker.

`python -m gpu_worker.control.load_error FOLDER` shows each new reason in the terminal of run.sh.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

from gpu_worker.contract.validation_errors import error_text
from gpu_worker.store import durable, process

MAX_CHARS = 2000
POLL_S = 1.0


class LoadError:
    """A file with the model and the reason. A full disk costs only this file.

    The file is gone as soon as the model has been loaded.
    """

    def __init__(self, path: Path, model: str) -> None:
        self._path = path
        self._model = model

    def read(self) -> str | None:
        """Return the reason of the last attempt to load this very model, or None."""
        model, _, reason = _read(self._path).partition("\n")
        return reason.strip() or None if model == self._model else None

    def write(self, error: Exception) -> str:
        """Store and return the reason."""
        reason = " ".join(error_text(error).split())[:MAX_CHARS]
        if not reason.startswith(f"{self._model}: "):
            reason = error_text(f"{self._model}: {reason}")
        with contextlib.suppress(OSError):
            durable.replace(self._path, f"{self._model}\n{reason}\n".encode())
        return reason

    def clear(self) -> None:
        """Forget the reason."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def _read(path: Path) -> str:
    try:
        return durable.read_plain(path).decode()
    except (OSError, ValueError):
        return ""


def report(folder: Path) -> None:
    """Print each new reason to stderr until the process ends.

    A reason of an earlier service counts as new as soon as it is written again.
    """
    earlier = {path.name: _written(path) for path in folder.glob("*.load_error")}
    printed: dict[str, str] = {}
    while True:
        for path in sorted(folder.glob("*.load_error")):
            content = _read(path)
            is_new = content != printed.get(path.name) and _written(path) != earlier.get(path.name)
            if content and is_new:
                reason = content.partition("\n")[2].strip()
                print(f"The model cannot be loaded: {reason}", file=sys.stderr, flush=True)
                printed[path.name] = content
        time.sleep(POLL_S)


def _written(path: Path) -> int | None:
    """Return the time of the last write in nanoseconds; None without a file."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


if __name__ == "__main__":
    process.end_with_parent()
    with contextlib.suppress(KeyboardInterrupt):
        report(Path(sys.argv[1]))
