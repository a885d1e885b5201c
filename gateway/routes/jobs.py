"""Resources under /image/jobs: the state of a job, its next change, and its cancellation."""

from __future__ import annotations

from typing import ClassVar

import falcon
import orjson

from gateway.errors import AlreadyEnded, TooManyStreams, UnknownJob
from gateway.http.access_control import principal
from gateway.http.concurrency_limit import ConcurrencyLimit
from gateway.http.params import number_param, parse_uuid
from gateway.jobs.broker import Broker
from gateway.jobs.cancellation import JobCancellation
from gateway.jobs.job_entry import JobState, JobView
from gateway.jobs.lookup import JobLookup

MAX_WAIT_S = 30.0
MAX_WAITING = 8
"""Requests that may wait, each of which keeps a thread (SERVER_THREADS). More are answered at
once."""

MAX_LISTED = 1000


class JobsResource:
    """GET /image/jobs: queued and running jobs, and those that ended since the gateway started."""

    query: ClassVar = {"GET": ("limit",)}

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with an array, newest first."""
        limit = int(number_param(req, "limit", 100, 1, MAX_LISTED))
        resp.data = orjson.dumps([view.json() for view in self._broker.views(limit)])


class JobResource:
    """GET and DELETE /image/jobs/{uuid}."""

    query: ClassVar = {"GET": ("wait",)}

    def __init__(self, lookup: JobLookup, cancellation: JobCancellation) -> None:
        self._lookup = lookup
        self._cancellation = cancellation
        self._waits = ConcurrencyLimit(MAX_WAITING, "waiting requests", retry_after_s=1)

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Answer with the job; with `wait=S` after its next change or S seconds."""
        uuid = parse_uuid(uuid, "uuid")
        wait_s = number_param(req, "wait", 0, 0, MAX_WAIT_S, whole=False)
        resp.data = orjson.dumps(self._view(uuid, wait_s).json())

    def _view(self, uuid: str, wait_s: float) -> JobView:
        if not wait_s:
            return self._lookup.view(uuid)
        try:
            release = self._waits.acquire()
        except TooManyStreams:
            return self._lookup.view(uuid)
        try:
            return self._lookup.view(uuid, wait_s)
        finally:
            release()

    def on_delete(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Cancel the job; answer 200 when it has ended, 202 while it runs to its next step."""
        uuid = parse_uuid(uuid, "uuid")
        principal(req).check_owner(self._lookup.view(uuid).owner)
        try:
            self._cancellation.cancel(uuid)
        except UnknownJob:
            state = self._lookup.view(uuid).state
            if state is not JobState.CANCELED:
                raise AlreadyEnded(f"the job {uuid} has {state} already") from None
        view = self._lookup.view(uuid)
        is_canceled = view.state is JobState.CANCELED
        resp.status = falcon.HTTP_OK if is_canceled else falcon.HTTP_ACCEPTED
        resp.data = orjson.dumps(view.json())
