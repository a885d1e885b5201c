"""Writes an image file atomically, as PNG, JPEG or WebP. It knows nothing of HTTP."""

from __future__ import annotations

import importlib
import io
import os
from itertools import count
from pathlib import Path
from uuid import uuid4

from sde_client import png_text
from sde_client.errors import NotSaved, reason_of

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Formats by suffix. Every other suffix gets the PNG itself."""

QUALITY = 95
"""Pillow's quality of JPEG and WebP files."""

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
"""EXIF 2.32, sections 4.6.3 and 4.6.5: where A1111 stores an image's parameters."""


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
        raise NotSaved(path, reason_of(error)) from error
    return target


def write(png: bytes | None, path: Path, *, replace: bool = True) -> Path:
    """Write an image to a temporary file in the same folder, and rename it to `path`.

    The suffixes .jpg, .jpeg and .webp convert the PNG; its parameters are then in the EXIF.

    Args:
        replace: replace an existing file. Otherwise the name gets a number: `name-2.png`.

    Returns:
        The path that was written.

    Raises:
        NotSaved: there are no bytes, Pillow is missing for the format, or check() or the disk
            refuses the path.
    """
    if not png:
        raise NotSaved(path, "the result has no image")
    content = _converted(png, path)
    target = check(path)
    part = target.with_name(f".sde-{uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if not replace:
            return _link_unused(part, target, path)
        part.replace(target)
    except OSError as error:
        raise NotSaved(path, reason_of(error)) from error
    finally:
        # No temporary file may stay after an error or Ctrl-C.
        part.unlink(missing_ok=True)
    return path


def _link_unused(part: Path, target: Path, path: Path) -> Path:
    """Give the file the first unused name. Raises OSError."""
    for number in count(1):
        suffix = "" if number == 1 else f"-{number}"
        candidate = target.with_name(f"{target.stem}{suffix}{target.suffix}")
        try:
            os.link(part, candidate)
        except FileExistsError:
            continue
        except OSError:
            # The file system has no hard links.
            if candidate.exists():
                continue
            part.replace(candidate)
        if number == 1:
            return path
        return candidate if path.is_symlink() else path.with_name(candidate.name)
    raise OSError("no name is left")


def _converted(png: bytes, path: Path) -> bytes:
    """Return the image in the format of the path's suffix, with its parameters."""
    name = FORMATS.get(path.suffix.lower())
    if name is None:
        return png
    check_format(path)
    try:
        return _encode(png, name)
    except (OSError, ValueError) as error:
        raise NotSaved(path, f"the image cannot be converted: {error}") from None


def check_format(path: Path) -> None:
    """Check that the suffix is one that can be written here.

    Raises:
        NotSaved: the format needs Pillow, which is not installed.
    """
    name = FORMATS.get(path.suffix.lower())
    try:
        if name is not None:
            importlib.import_module("PIL.Image")
    except ImportError:
        raise NotSaved(path, f"install Pillow to save a {name}, or use a name in .png") from None


def _encode(png: bytes, name: str) -> bytes:
    from PIL import Image

    image = Image.open(io.BytesIO(png))
    exif = Image.Exif()
    parameters = png_text.texts(png).get("parameters")
    if parameters is not None:
        comment = b"UNICODE\0" + parameters.encode("utf-16-be")
        exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = comment
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, name, quality=QUALITY, exif=exif)
    return buffer.getvalue()
