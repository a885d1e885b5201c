"""POST, GET and DELETE /image/generate: the seed's contract, pages, and deletion of results."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import urlencode

import falcon
import orjson

from gateway.errors import DeletedJob, UnknownJob
from gateway.http_input import (
    JSON,
    bad,
    idempotency_key,
    json_body,
    known_params,
    number_param,
    truth_param,
    uuid_param,
)
from gateway.intake import Intake
from gateway.pictures import PictureReader
from gateway.removal import Removal
from gpu_worker.results import DamagedLine, Entry, ResultIndex

log = logging.getLogger(__name__)

MAX_PAGE = 1000
DEFAULT_PAGE = 100


class GenerateResource:
    """They accept, look and delete; they do no work."""

    def __init__(
        self,
        intake: Intake,
        reader: PictureReader,
        limit_bytes: int,
        removal: Removal,
        index: ResultIndex,
    ) -> None:
        self._reader = reader
        self._limit_bytes = limit_bytes
        self._intake = intake
        self._removal = removal
        self._index = index

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """200 `{"generation_uuid": ...}`, or 4xx, 429, 503, 507."""
        key = idempotency_key(req)
        with self._reader.room(req.content_length or 0):
            request, pictures = self._reader.request(json_body(req, self._limit_bytes))
            uuid = self._intake.submit(request, key, pictures)
        resp.data = orjson.dumps({"generation_uuid": uuid})

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Results as a JSON array streamed from the log: all, oldest first; a page, newest first;
        or those of `generation_uuid`, in their order."""
        known_params(req, "generation_uuid", "limit", "before", "data")
        uuid = uuid_param(req, "generation_uuid")
        with_data = truth_param(req, "data", default=True)
        entries: Iterable[Entry]
        if uuid is not None:
            entries = self._index.find_all(uuid)
        elif "limit" in req.params or "before" in req.params:
            limit = int(number_param(req, "limit", DEFAULT_PAGE, 1, MAX_PAGE))
            entries = page = self._page(req, limit)
            if len(page) >= limit:
                query = {**req.params, "before": page[-1].uuid}
                resp.append_link(f"{req.path}?{urlencode(query)}", "next")
        else:
            entries = self._index.oldest_first()
        resp.content_type = JSON
        resp.stream = array(
            entries, self._index.read if with_data else self._index.read_without_data
        )

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        """204: the results of `generation_uuid` are gone."""
        known_params(req, "generation_uuid")
        uuid = uuid_param(req, "generation_uuid")
        if uuid is None:
            raise bad(
                "generation_uuid", None, "is missing: one job's results are deleted at a time"
            )
        if not self._removal.delete(uuid):
            if self._index.is_deleted(uuid):
                raise DeletedJob(uuid)
            raise UnknownJob(uuid)
        resp.status = falcon.HTTP_NO_CONTENT

    def _page(self, req: falcon.Request, limit: int) -> list[Entry]:
        before = uuid_param(req, "before")
        last = self._index.find(before) if before is not None else None
        if before is not None and self._index.is_deleted(before):
            raise DeletedJob(before)
        if before is not None and last is None:
            raise bad("before", before, "is no result's uuid")
        return self._index.newest_first(limit, last)


def array(entries: Iterable[Entry], read: Callable[[Entry], bytes | None]) -> Iterator[bytes]:
    """The records as one JSON array, a line an object; nothing is parsed, one is held at a time.

    A record that has become unreadable is left out and reported: the others are served.
    """
    yield b"["
    separator = b""
    for entry in entries:
        try:
            line = read(entry)
        except (OSError, DamagedLine) as error:
            log.warning("left the result %s out: %s", entry.uuid, error)
            continue
        if line is not None:
            yield separator + line
            separator = b",\n"
    yield b"]"
