"""Keeps small versions of images on the disk, within a bound. They can be made again at any time.

The files are `UU/UUID-N.PX.webp`, where UU are the first digits of the uuid. The one writer is the
gateway. A file appears by rename.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from gateway.store.gallery import image_name
from gateway.store.gallery.image_name import ImageName
from gpu_worker.store import durable

log = logging.getLogger(__name__)

MIN_PX, MAX_PX = 64, 1024

AT_ONCE = 2
"""Thumbnails that are made at a time. Each needs a core and the pixels of its image."""

QUALITY, METHOD = 80, 2
"""Pillow's settings for WebP. Method 4, its default, takes twice as long for 3 % fewer bytes."""

TARGET_SHARE = 0.9
"""Above the bound, the files that were unused for longest are removed, down to this share of it."""

USED_AFTER_S = 3600.0
"""A file that is read is noted as used this often, so that a read seldom writes."""


class ThumbnailCache:
    """One folder. Thread-safe.

    Args:
        max_bytes: the bound of all files; 0 stores none.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._size_bytes: int | None = None

    def stored(self, name: ImageName, px: int) -> bytes | None:
        """Return the WebP as thumbnail() does, or None if there is no file yet."""
        return _read(self._path(name, px))

    def thumbnail(self, name: ImageName, px: int, read_png: Callable[[], bytes]) -> bytes:
        """Return a WebP whose longer side has at most `px` pixels.

        Args:
            read_png: returns the whole image, if there is no file yet.

        Raises:
            OSError: the PNG cannot be decoded.
        """
        path = self._path(name, px)
        with self._places:
            stored = _read(path)  # another request may have made it meanwhile
            if stored is None:
                stored = make(read_png(), px)
                self._store(path, stored)
        return stored

    def _path(self, name: ImageName, px: int) -> Path:
        return self._folder / name.uuid[:2] / f"{name}.{px}.webp"

    def remove(self, names: set[ImageName]) -> None:
        """Remove the files of images that were deleted."""
        for digits in {name.uuid[:2] for name in names}:
            self._sweep(_listed(self._folder / digits), lambda name: name not in names)

    def sweep(self, is_needed: Callable[[ImageName], bool]) -> None:
        """Remove the files of all images that are not needed, and what a crash has left."""
        self._sweep(self._files(), is_needed)

    def _sweep(self, paths: Iterable[Path], is_needed: Callable[[ImageName], bool]) -> None:
        for path in paths:
            text, _, _ = path.name.partition(".")
            name = image_name.parse(text)
            if name is None or path.suffix != ".webp" or not is_needed(name):
                self._remove(path)

    def _remove(self, path: Path) -> None:
        with self._lock, contextlib.suppress(OSError):
            size = path.stat().st_size
            path.unlink()
            if self._size_bytes is not None:
                self._size_bytes -= size

    def _store(self, path: Path, content: bytes) -> None:
        """Write a file. A disk that refuses costs the cache alone."""
        if not self._max_bytes:
            return
        draft = path.with_name(f"{path.name}.tmp")
        with self._lock:
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
                descriptor = os.open(draft, flags, 0o600)
                try:
                    durable.write_all(descriptor, content)
                finally:
                    os.close(descriptor)
                draft.replace(path)
            except OSError as error:
                log.debug("a thumbnail is not stored: %s", error)
                with contextlib.suppress(OSError):
                    draft.unlink()
                return
            if self._size_bytes is None:
                self._size_bytes = sum(map(_size, self._files()))
            else:
                self._size_bytes += len(content)
            if self._size_bytes > self._max_bytes:
                self._size_bytes = self._evict()

    def _evict(self) -> int:
        """Remove the files that were not used for longest. Return the bytes that are left."""
        files = []
        for path in self._files():
            with contextlib.suppress(OSError):
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        left = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if left <= self._max_bytes * TARGET_SHARE:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                left -= size
        return left

    def _files(self) -> list[Path]:
        return [path for folder in _listed(self._folder) for path in _listed(folder)]


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def make(png: bytes, px: int) -> bytes:
    """Return a WebP of an image, at most `px` pixels a side and never larger than the image.

    Raises:
        OSError: it cannot be decoded.
    """
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        small = image if image.mode in ("RGB", "RGBA") else image.convert("RGB")
        small.thumbnail((px, px), Image.Resampling.LANCZOS, reducing_gap=2.0)
        buffer = io.BytesIO()
        small.save(buffer, "WEBP", quality=QUALITY, method=METHOD)
    return buffer.getvalue()


def _read(path: Path) -> bytes | None:
    """Return the content of a whole file. A crash of the machine may have left a part."""
    try:
        content = durable.read_plain(path)
        if time.time() - path.stat().st_mtime > USED_AFTER_S:
            os.utime(path)
    except OSError:
        return None
    # RIFF's header has the length of what follows its first eight bytes.
    is_whole = content[:4] == b"RIFF" and int.from_bytes(content[4:8], "little") + 8 == len(content)
    return content if is_whole else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
