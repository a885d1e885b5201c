"""GET /image/files/{uuid}.png: the image itself, for <img>, browsers and caches."""

from __future__ import annotations

import binascii
import re

import falcon

from gateway.errors import NoImage, ResultDeleted
from gateway.http.params import invalid_parameter, parse_uuid
from gateway.jobs.job_entry import JobState
from gateway.jobs.lookup import JobLookup
from gateway.store.index_db import Entry
from gateway.store.result_index import ResultIndex

_NAME = re.compile(r"([0-9a-fA-F-]{36})(?:-([1-9]\d{0,3}))?\.png")


class FileResource:
    """Serves images. An image never changes, so a client may cache it for good."""

    def __init__(self, index: ResultIndex, lookup: JobLookup) -> None:
        self._index = index
        self._lookup = lookup

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Answer with `{uuid}.png`, or with `{uuid}-N.png`, the N-th image of a job, from 1."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise invalid_parameter("name", name, "is not UUID.png or UUID-N.png")
        uuid = parse_uuid(match[1], "uuid")
        number = int(match[2] or 1)
        etag = falcon.ETag(f"{uuid}-{number}")
        entry = find_image(self._index, self._lookup, uuid, number)
        has = req.if_none_match or []
        if "*" in has or etag in has:
            resp.status = falcon.HTTP_NOT_MODIFIED  # the record need not be read
        else:
            resp.content_type = "image/png"
            resp.data = read_image(self._index, entry)
        resp.etag = etag
        resp.set_header("Cache-Control", "private, max-age=31536000, immutable")


def read_image(index: ResultIndex, entry: Entry) -> bytes:
    """Return the PNG. Raises ResultDeleted when its result has just been deleted."""
    data = index.read_data(entry)
    if data is None:
        raise ResultDeleted(entry.uuid)
    return binascii.a2b_base64(data)


def find_image(index: ResultIndex, lookup: JobLookup, uuid: str, number: int) -> Entry:
    """Return the entry of a job's N-th image, from 1.

    Raises:
        NoImage: the job has no image of this number, or none yet.
        UnknownJob: the job does not exist.
        ResultDeleted: its result was deleted.
    """
    entry = index.find_image(uuid, number - 1)
    if entry is not None and entry.data_length:
        return entry
    state = lookup.view(uuid).state
    if state is JobState.SUCCEEDED:
        first = index.find(uuid)
        count = first.num_images if first is not None else 1
        if number <= count:
            raise NoImage(f"image {number} of the job {uuid} is damaged on the disk")
        raise NoImage(f"the job {uuid} has no image {number}; it has {count}")
    raise NoImage(f"the job {uuid} is {state} and has no image")
