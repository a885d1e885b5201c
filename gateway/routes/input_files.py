"""GET /image/jobs/{uuid}/inputs/{sha256}: an input image of a job that has ended.

It is looked up among the digests of the record, so a client's string never becomes a path.
"""

from __future__ import annotations

import os
import re

import falcon
import orjson

from gateway.errors import NoImage
from gateway.http.params import invalid_parameter, parse_uuid
from gateway.jobs.lookup import JobLookup
from gateway.store.input_store import InputStore
from gateway.store.result_index import ResultIndex
from gpu_worker.contract.fields.request_walk import image_fields

_SHA256 = re.compile(r"[0-9a-f]{64}")

_KINDS = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"RIFF", "image/webp"))
"""Media types by a file's first bytes. A client sent the file, so nothing else is trusted."""


class InputFileResource:
    """Serves input images. Their name is their digest, so a client may cache them for good."""

    def __init__(self, index: ResultIndex, lookup: JobLookup, inputs: InputStore) -> None:
        self._index = index
        self._lookup = lookup
        self._inputs = inputs

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str, sha256: str) -> None:
        """Answer with the file as the client sent it, byte for byte."""
        uuid = parse_uuid(uuid, "uuid")
        if _SHA256.fullmatch(sha256) is None:
            raise invalid_parameter("sha256", sha256, "is not 64 hexadecimal digits in lower case")
        line = self._index.read_without_data(uuid)
        if line is None:
            state = self._lookup.view(uuid).state
            raise NoImage(
                f"the job {uuid} is {state}; its input images are available after its end"
            )
        digests = {holder[key] for _, holder, key in image_fields(orjson.loads(line))}
        if f"sha256:{sha256}" not in digests:
            raise NoImage(f"the job {uuid} has no input image sha256:{sha256}")
        try:
            file = self._inputs.open(uuid, sha256)
            head, size = file.read(4), file.seek(0, os.SEEK_END)
            file.seek(0)
        except OSError as error:
            raise NoImage(
                f"the input image sha256:{sha256} of {uuid} cannot be read: {error.strerror}"
            ) from None
        kinds = [kind for begin, kind in _KINDS if head.startswith(begin)]
        resp.content_type = kinds[0] if kinds else "application/octet-stream"
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.set_header("Cache-Control", "private, max-age=31536000, immutable")
        resp.set_stream(file, size)
