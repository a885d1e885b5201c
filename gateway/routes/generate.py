"""POST, GET and DELETE /image/generate: version 1's contract, pages, and deletion of results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar
from urllib.parse import urlencode

import falcon
import orjson

from gateway.admission import submission_options
from gateway.admission.input_images import InputImageReader
from gateway.errors import ResultDeleted, UnknownJob
from gateway.http.access_control import principal
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
from gateway.http.request_log import caller
from gateway.jobs.lookup import JobLookup
from gateway.jobs.submission import JobSubmission
from gateway.jobs.trash import ResultTrash
from gateway.store.gallery.image_name import ImageName
from gateway.store.index_db import Entry
from gateway.store.result_index import ResultIndex

MAX_PAGE = 1000
DEFAULT_PAGE = 100


class GenerateResource:
    """Accepts jobs, lists results and deletes them."""

    query: ClassVar = {
        "GET": ("generation_uuid", "limit", "before", "data"),
        "DELETE": ("generation_uuid", "trash"),
    }

    def __init__(
        self,
        submission: JobSubmission,
        reader: InputImageReader,
        max_body_bytes: int,
        trash: ResultTrash,
        index: ResultIndex,
        lookup: JobLookup,
    ) -> None:
        self._reader = reader
        self._max_body_bytes = max_body_bytes
        self._submission = submission
        self._trash = trash
        self._index = index
        self._lookup = lookup
        self._arrays = RecordArrayResponder(index)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200 `{"generation_uuid": ...}`, or 4xx, 503, 507."""
        key = idempotency_key(req)
        with self._reader.room(req.content_length or 0):
            options, body = submission_options.split(json_body(req, self._max_body_bytes))
            request, images = self._reader.request(body)
            req.context.generation = request
            uuid = self._submission.submit(
                request, key, images, caller=caller(req), options=options
            )
        resp.data = orjson.dumps({"generation_uuid": uuid})

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with results from the log as a JSON array.

        They are all results, oldest first; a page, newest first; or those of `generation_uuid`, in
        the order of their images.
        """
        uuid = uuid_param(req, "generation_uuid")
        with_data = bool_param(req, "data", default=True)
        entries: Iterable[Entry]
        if uuid is not None:
            for name in ("limit", "before"):
                if name in req.params:
                    why = "cannot be sent together with generation_uuid"
                    raise invalid_parameter(name, req.get_param(name), why)
            entries = self._index.find_all(uuid)
        elif "limit" in req.params or "before" in req.params:
            limit = int(number_param(req, "limit", DEFAULT_PAGE, 1, MAX_PAGE))
            entries = page = self._page(req, limit)
            if len(page) >= limit:
                query = {**req.params, "before": page[-1].uuid}
                resp.append_link(f"{req.root_path}{req.path}?{urlencode(query)}", "next")
        else:
            entries = self._index.oldest_first()
        self._arrays.answer(req, resp, entries, with_data)

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Move the results of `generation_uuid` into the trash; answer 204.

        With `trash=false` they are deleted at once.
        """
        uuid = uuid_param(req, "generation_uuid")
        if uuid is None:
            raise missing_parameter(
                "generation_uuid", "the uuid of the job whose results to delete"
            )
        sender = principal(req)
        if not sender.is_admin:
            for owner in self._owners(uuid):
                sender.check_owner(owner)
        at_once = not bool_param(req, "trash", default=True)
        if not self._trash.trash_job(uuid, at_once=at_once):
            if self._index.is_deleted(uuid):
                raise ResultDeleted(uuid)
            raise UnknownJob(uuid)
        resp.status = falcon.HTTP_NO_CONTENT

    def _owners(self, uuid: str) -> set[str | None]:
        """Return the owner of a job's results, which may be in the trash."""
        names = [ImageName(uuid, each.image_index) for each in self._index.find_records(uuid)]
        owners = self._index.query(lambda db: db.images.owners(names))
        return owners or {self._lookup.view(uuid).owner}

    def _page(self, req: falcon.Request, limit: int) -> list[Entry]:
        before = uuid_param(req, "before")
        last = self._index.find(before) if before is not None else None
        if before is not None and self._index.is_deleted(before):
            raise ResultDeleted(before)
        if before is not None and last is None:
            raise invalid_parameter("before", before, "is not the uuid of a result")
        return self._index.newest_first(limit, last)
