"""GET /image/files/{name}.webp: a small version of an image, which is made once."""

from __future__ import annotations

import binascii

import falcon

from gateway.errors import NoImage
from gateway.http.concurrency_limit import ConcurrencyLimit
from gateway.http.params import number_param
from gateway.store.gallery.image_name import ImageName
from gateway.store.gallery.thumbnail_cache import MAX_PX, MIN_PX, ThumbnailCache
from gateway.store.index_db import Entry
from gateway.store.result_index import ResultIndex
from gpu_worker.store.durable import DamagedLine

DEFAULT_PX = 256

MAX_MADE = 16
"""Thumbnails that are made or wait for it, each of which keeps a thread (SERVER_THREADS); more are
refused with 503."""


class ThumbnailReader:
    """Answers with thumbnails of images, in the trash or not."""

    def __init__(self, index: ResultIndex, cache: ThumbnailCache) -> None:
        self._index = index
        self._cache = cache
        self._limit = ConcurrencyLimit(MAX_MADE, "new thumbnails", retry_after_s=1)

    def pixels(self, req: falcon.Request) -> int:
        """Return the requested length of the longer side. Raises falcon.HTTPBadRequest."""
        return int(number_param(req, "px", DEFAULT_PX, MIN_PX, MAX_PX))

    def read(self, entry: Entry, px: int) -> bytes:
        """Return the WebP.

        Raises:
            NoImage: the image has just been deleted, or is damaged.
            TooManyStreams: too many others wait for theirs to be made.
        """
        name = ImageName(entry.uuid, entry.image_index)
        stored = self._cache.stored(name, px)
        if stored is not None:
            return stored

        def read_png() -> bytes:
            data = self._index.read_data(entry)
            if data is None:
                raise NoImage(f"the image {name} has just been deleted")
            return binascii.a2b_base64(data)

        release = self._limit.acquire()
        try:
            return self._cache.thumbnail(name, px, read_png)
        except (OSError, binascii.Error, DamagedLine):
            raise NoImage(f"the image {name} cannot be decoded") from None
        finally:
            release()
