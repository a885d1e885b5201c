"""POST /image/zip: a selection of images as one ZIP file, which is streamed."""

from __future__ import annotations

import binascii
import io
import logging
import zipfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import falcon

from gateway.errors import NoImage
from gateway.http.concurrency_limit import ConcurrencyLimit
from gateway.http.json_array import RecordStream
from gateway.routes.gallery.changes import names_of, read_images
from gateway.routes.gallery.speaking_name import speaking_name
from gateway.store.gallery.image_name import ImageName
from gateway.store.result_index import ResultIndex
from gateway.store.stored_bytes import PIECE_BYTES
from gpu_worker.store.durable import DamagedLine

log = logging.getLogger(__name__)

MAX_STREAMS = 4
"""Archives at a time, each of which keeps a thread (SERVER_THREADS); more are refused with 503."""


class ZipResource:
    """Serves archives. One image is in memory at a time."""

    def __init__(self, index: ResultIndex) -> None:
        self._index = index
        self._streams = ConcurrencyLimit(MAX_STREAMS, "archives", retry_after_s=5)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with `application/zip`. Images that do not exist are left out; 404 without any."""
        names = list(dict.fromkeys(names_of(read_images(req))))
        existing = [name for name in names if self._has_image(name)]
        if not existing:
            raise NoImage("none of these images exists")
        resp.content_type = "application/zip"
        day = datetime.now().astimezone().date().isoformat()
        resp.set_header("Content-Disposition", f'attachment; filename="images-{day}.zip"')
        resp.set_header("Cache-Control", "no-store")
        resp.stream = RecordStream(archive(self._index, existing), self._streams.acquire())

    def _has_image(self, name: ImageName) -> bool:
        entry = self._index.find_image(*name, trash=True)
        return entry is not None and entry.data_length > 0


class _Output(io.RawIOBase):
    """What zipfile writes to: it cannot seek, and what was written is taken away piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        return len(piece)

    def drain(self) -> bytes:
        """Return what was written since the last call."""
        content = b"".join(self._pieces)
        self._pieces.clear()
        return content


def archive(index: ResultIndex, names: Iterable[ImageName]) -> Iterator[bytes]:
    """Yield a ZIP file. Its images are stored as they are, because a PNG is compressed already.

    An image that cannot be read is left out and logged.
    """
    output = _Output()
    used: set[str] = set()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED, allowZip64=True) as file:
        for name in names:
            try:
                image, png = _read(index, name)
            except (OSError, DamagedLine, LookupError) as error:
                log.warning("the image %s is left out of an archive: %s", name, error)
                continue
            with file.open(_info(image, used), "w", force_zip64=len(png) >= 1 << 31) as member:
                for start in range(0, len(png), PIECE_BYTES):
                    member.write(png[start : start + PIECE_BYTES])
            yield output.drain()
    yield output.drain()


def _read(index: ResultIndex, name: ImageName) -> tuple[dict[str, Any], bytes]:
    """Return an image's members and its PNG. Raises LookupError when it has just been deleted."""
    row = index.query(lambda db: db.images.find(name))
    entry = index.find_image(*name, trash=True)
    data = index.read_data(entry) if entry is not None else None
    if row is None or not data:
        raise LookupError("it has just been deleted")
    return row.members, binascii.a2b_base64(data)


def _info(image: dict[str, Any], used: set[str]) -> zipfile.ZipInfo:
    stem = speaking_name(image)
    number, file_name = 1, f"{stem}.png"
    while file_name in used:
        number += 1
        file_name = f"{stem}-{number}.png"
    used.add(file_name)
    info = zipfile.ZipInfo(file_name, _local_time(image["created_time"]))
    info.external_attr = 0o644 << 16
    return info


def _local_time(text: object) -> tuple[int, int, int, int, int, int]:
    """Return a time as ZIP has it; it begins in 1980."""
    try:
        time = datetime.fromisoformat(str(text)).astimezone()
    except (ValueError, OverflowError):
        return (1980, 1, 1, 0, 0, 0)
    if not 1980 <= time.year <= 2107:
        return (1980, 1, 1, 0, 0, 0)
    return (time.year, time.month, time.day, time.hour, time.minute, time.second)
