"""POST, GET and DELETE /image/generate: version 1's contract, pages, and deletion of results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar
from urllib.parse import urlencode

import falcon
import orjson

from gateway.admission.input_images import InputImageReader
from gateway.errors import ResultDeleted, UnknownJob
from gateway.http.json_array import RecordArrayResponder
from gateway.http.json_body import json_body
from gateway.http.params import (
    bool_param,
    idempotency_key,
    invalid_parameter,
    missing_parameter,
    number_param,
    uuid_param,
)
from gateway.jobs.deletion import ResultDeletion
from gateway.jobs.submission import JobSubmission
from gateway.store.index_db import Entry
from gateway.store.result_index import ResultIndex

MAX_PAGE = 1000
DEFAULT_PAGE = 100


class GenerateResource:
    """They accept, look and delete; they do no work."""

    query: ClassVar = {
        "GET": ("generation_uuid", "limit", "before", "data"),
        "DELETE": ("generation_uuid",),
    }

    def __init__(
        self,
        submission: JobSubmission,
        reader: InputImageReader,
        max_body_bytes: int,
        deletion: ResultDeletion,
        index: ResultIndex,
    ) -> None:
        self._reader = reader
        self._max_body_bytes = max_body_bytes
        self._submission = submission
        self._deletion = deletion
        self._index = index
        self._arrays = RecordArrayResponder(index)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """200 `{"generation_uuid": ...}`, or 4xx, 429, 503, 507."""
        key = idempotency_key(req)
        with self._reader.room(req.content_length or 0):
            request, images = self._reader.request(json_body(req, self._max_body_bytes))
            uuid = self._submission.submit(request, key, images)
        resp.data = orjson.dumps({"generation_uuid": uuid})

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Results as a JSON array from the log: all, oldest first; a page, newest first; or those
        of `generation_uuid`, in their order."""
        uuid = uuid_param(req, "generation_uuid")
        with_data = bool_param(req, "data", default=True)
        entries: Iterable[Entry]
        if uuid is not None:
            for name in ("limit", "before"):
                if name in req.params:
                    why = "is of a list of jobs: not together with generation_uuid"
                    raise invalid_parameter(name, req.get_param(name), why)
            entries = self._index.find_all(uuid)
        elif "limit" in req.params or "before" in req.params:
            limit = int(number_param(req, "limit", DEFAULT_PAGE, 1, MAX_PAGE))
            entries = page = self._page(req, limit)
            if len(page) >= limit:
                query = {**req.params, "before": page[-1].uuid}
                resp.append_link(f"{req.path}?{urlencode(query)}", "next")
        else:
            entries = self._index.oldest_first()
        self._arrays.answer(req, resp, entries, with_data)

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        """204: the results of `generation_uuid` are gone."""
        uuid = uuid_param(req, "generation_uuid")
        if uuid is None:
            raise missing_parameter(
                "generation_uuid", "the uuid of the job whose results are to go"
            )
        if not self._deletion.delete(uuid):
            if self._index.is_deleted(uuid):
                raise ResultDeleted(uuid)
            raise UnknownJob(uuid)
        resp.status = falcon.HTTP_NO_CONTENT

    def _page(self, req: falcon.Request, limit: int) -> list[Entry]:
        before = uuid_param(req, "before")
        last = self._index.find(before) if before is not None else None
        if before is not None and self._index.is_deleted(before):
            raise ResultDeleted(before)
        if before is not None and last is None:
            raise invalid_parameter("before", before, "is no result's uuid")
        return self._index.newest_first(limit, last)
