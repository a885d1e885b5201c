"""Writes an image file atomically. It knows nothing of HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

from sde_client.errors import NotSaved


def check(path: Path) -> Path:
    """Return the file that write() will create or replace. A symbolic link is followed.

    Raises:
        NotSaved: `path` is a directory or a device, or its folder cannot be written to.
    """
    try:
        target = path.resolve()
        folder = target.parent
        if target.is_dir():
            raise NotSaved(path, "it is a directory; give a file name")
        if target.exists() and not target.is_file():
            raise NotSaved(path, "it is not a regular file")
        if not folder.is_dir():
            raise NotSaved(path, f"the folder {folder} does not exist")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise NotSaved(path, f"the folder {folder} is not writable")
    except (OSError, RuntimeError, ValueError) as error:
        raise NotSaved(path, _reason(error)) from error
    return target


def write(png: bytes | None, path: Path) -> Path:
    """Write `png` to a temporary file in the same folder, and rename it to `path`.

    Raises:
        NotSaved: there are no bytes, or check() or the disk refuses the path.
    """
    if not png:
        raise NotSaved(path, "the result has no image")
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
        # No temporary file may stay after an error or Ctrl-C.
        part.unlink(missing_ok=True)
    return path


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
