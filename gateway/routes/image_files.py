"""GET /image/files/{name}: an image itself or its thumbnail, for <img>, browsers and caches."""

from __future__ import annotations

import binascii
import re
from typing import ClassVar

import falcon

from gateway.errors import NoImage, ResultDeleted
from gateway.http.params import bool_param, invalid_parameter, parse_uuid
from gateway.http.reply_file import LARGE_BYTES, ReplyFile
from gateway.jobs.job_entry import JobState
from gateway.jobs.lookup import JobLookup
from gateway.routes.gallery.speaking_name import content_disposition
from gateway.routes.gallery.thumbnails import ThumbnailReader
from gateway.store.gallery.image_name import ImageName
from gateway.store.index_db import Entry
from gateway.store.result_index import ResultIndex
from gateway.store.stored_bytes import DecodedBase64

_NAME = re.compile(r"([0-9a-fA-F-]{36})(?:-([1-9]\d{0,3}))?\.(png|webp)")


class FileResource:
    """Serves images. An image never changes, so a client may cache it for good."""

    query: ClassVar = {"GET": ("px", "download", "trash")}

    def __init__(self, index: ResultIndex, lookup: JobLookup, thumbnails: ThumbnailReader) -> None:
        self._index = index
        self._lookup = lookup
        self._thumbnails = thumbnails

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Answer with `{uuid}.png`, or with `{uuid}-N.png`, the N-th image of a job, from 1.

        `.webp` is its thumbnail, which exists in the trash, too.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise invalid_parameter("name", name, "is not UUID.png or UUID-N.png, nor one of .webp")
        uuid = parse_uuid(match[1], "uuid")
        number = int(match[2] or 1)
        is_thumbnail = match[3] == "webp"
        px = self._thumbnails.pixels(req)
        if not is_thumbnail and "px" in req.params:
            raise invalid_parameter("px", req.get_param("px"), "belongs to a name with .webp")
        etag = falcon.ETag(f"{uuid}-{number}" + (f"-{px}" if is_thumbnail else ""))
        trash = is_thumbnail or bool_param(req, "trash", default=False)
        entry = find_image(self._index, self._lookup, uuid, number, trash=trash)
        if bool_param(req, "download", default=False):
            self._name_download(resp, entry, match[3])
        has = req.if_none_match or []
        if "*" in has or etag in has:
            resp.status = falcon.HTTP_NOT_MODIFIED  # the record need not be read
        elif is_thumbnail:
            resp.content_type = "image/webp"
            resp.data = self._thumbnails.read(entry, px)
        else:
            resp.content_type = "image/png"
            _send(resp, self._index, entry)
        resp.etag = etag
        resp.set_header("Cache-Control", "private, max-age=31536000, immutable")

    def _name_download(self, resp: falcon.Response, entry: Entry, extension: str) -> None:
        name = ImageName(entry.uuid, entry.image_index)
        row = self._index.query(lambda db: db.images.find(name))
        if row is not None:
            header = content_disposition(row.members, extension)
            resp.set_header("Content-Disposition", header)


def _send(resp: falcon.Response, index: ResultIndex, entry: Entry) -> None:
    """Send the PNG, a large one from the log. Raises ResultDeleted as read_image() does."""
    if entry.data_length <= LARGE_BYTES or entry.data_length % 4:
        resp.data = read_image(index, entry)
        return
    text = index.stored_data(entry)
    if text is None:
        raise ResultDeleted(entry.uuid)
    image = ReplyFile(DecodedBase64(text))
    resp.set_stream(image, len(image))


def read_image(index: ResultIndex, entry: Entry) -> bytes:
    """Return the PNG. Raises ResultDeleted when its result has just been deleted."""
    data = index.read_data(entry)
    if data is None:
        raise ResultDeleted(entry.uuid)
    return binascii.a2b_base64(data)


def find_image(
    index: ResultIndex, lookup: JobLookup, uuid: str, number: int, *, trash: bool = False
) -> Entry:
    """Return the entry of a job's N-th image, from 1.

    Args:
        trash: an image in the trash counts, too.

    Raises:
        NoImage: the job has no image of this number, or none yet.
        UnknownJob: the job does not exist.
        ResultDeleted: its result was deleted.
    """
    entry = index.find_image(uuid, number - 1, trash=trash)
    if entry is not None and entry.data_length:
        return entry
    state = lookup.view(uuid).state
    if state is JobState.SUCCEEDED:
        first = index.find(uuid)
        count = first.num_images if first is not None else 1
        if number <= count and index.is_image_deleted(uuid, number - 1):
            raise ResultDeleted(f"{uuid}-{number}", is_image=True)
        if number <= count:
            raise NoImage(f"image {number} of the job {uuid} is damaged on the disk")
        raise NoImage(f"the job {uuid} has no image {number}; it has {count}")
    raise NoImage(f"the job {uuid} is {state} and has no image")
