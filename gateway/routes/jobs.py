"""Resources under /image/jobs: where a job stands, waiting for its next change, ending it."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import falcon
import orjson

from gateway.errors import AlreadyEnded, ResultDeleted, UnknownJob
from gateway.http.params import number_param, parse_uuid
from gateway.jobs.broker import Broker
from gateway.jobs.job_entry import view_of_record
from gateway.jobs.removal import Removal
from gateway.store.result_index import ResultIndex

MAX_WAIT_S = 30.0
MAX_WAITING = 8
"""Of the gateway's threads (SERVER_THREADS), so many may wait; beyond them the answer comes at
once."""

MAX_LISTED = 1000


class JobLookup:
    """Finds a job in the table, the log, or among the deleted."""

    def __init__(self, broker: Broker, index: ResultIndex) -> None:
        self._broker = broker
        self._index = index

    def view(
        self, uuid: str, wait_s: float = 0, told: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """As GET /image/jobs/{uuid} shows it; see Broker.view.

        Raises:
            UnknownJob: never seen.
            DeletedJob: its result has been deleted.
        """
        try:
            return self._broker.view(uuid, wait_s, told)
        except UnknownJob:
            line = self._index.read_without_data(uuid)
        if line is not None:
            return view_of_record(orjson.loads(line))
        if self._index.is_deleted(uuid):
            raise ResultDeleted(uuid)
        raise UnknownJob(uuid)


class JobsResource:
    """GET /image/jobs: the jobs that wait and run, and those that ended since the start."""

    query: ClassVar = {"GET": ("limit",)}

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """An array, newest first."""
        limit = int(number_param(req, "limit", 100, 1, MAX_LISTED))
        resp.data = orjson.dumps(self._broker.views(limit))


class JobResource:
    """GET and DELETE /image/jobs/{uuid}."""

    query: ClassVar = {"GET": ("wait",)}

    def __init__(self, whereabouts: JobLookup, removal: Removal) -> None:
        self._whereabouts = whereabouts
        self._removal = removal
        self._places = threading.BoundedSemaphore(MAX_WAITING)

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """The job; with `wait=S` after its next change or S seconds."""
        uuid = parse_uuid(uuid, "uuid")
        wait_s = number_param(req, "wait", 0, 0, MAX_WAIT_S, whole=False)
        waits = wait_s > 0 and self._places.acquire(blocking=False)
        try:
            resp.data = orjson.dumps(self._whereabouts.view(uuid, wait_s if waits else 0))
        finally:
            if waits:
                self._places.release()

    def on_delete(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """200 with the job, which is canceled; 202 while it still runs to its next step."""
        uuid = parse_uuid(uuid, "uuid")
        try:
            self._removal.cancel(uuid)
        except UnknownJob:
            state = self._whereabouts.view(uuid)["state"]
            if state != "canceled":
                raise AlreadyEnded(f"the job {uuid} has {state} already") from None
        view = self._whereabouts.view(uuid)
        resp.status = falcon.HTTP_OK if view["state"] == "canceled" else falcon.HTTP_ACCEPTED
        resp.data = orjson.dumps(view)
