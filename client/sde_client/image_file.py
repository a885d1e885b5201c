"""Writes a picture so that nobody ever sees half of one. Knows no HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

from sde_client.errors import NotSaved


def check(path: Path) -> Path:
    """The file that writing to `path` will replace; a symlink is followed.

    Raises:
        NotSaved: a directory, a device, or a folder that is missing or may not be written to.
    """
    try:
        target = path.resolve()
        folder = target.parent
        if target.is_dir():
            raise NotSaved(path, "it is a directory; give a file name")
        if target.exists() and not target.is_file():
            raise NotSaved(path, "it is not a regular file")
        if not folder.is_dir():
            raise NotSaved(path, f"there is no folder {folder}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise NotSaved(path, f"the folder {folder} may not be written to")
    except (OSError, RuntimeError, ValueError) as error:
        raise NotSaved(path, _reason(error)) from error
    return target


def write(png: bytes | None, path: Path) -> Path:
    """Write `png` to `path` by way of a temporary file beside it.

    Raises:
        NotSaved: no bytes, or what check() and the disk object to.
    """
    if not png:
        raise NotSaved(path, "the result has no picture")
    target = check(path)
    part = target.with_name(f".sde-{uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            file.write(png)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise NotSaved(path, _reason(error)) from error
    finally:
        # After the replace there is none; after a fault or Ctrl-C none may stay.
        part.unlink(missing_ok=True)
    return path


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
