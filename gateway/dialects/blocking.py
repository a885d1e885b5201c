"""Lets a request wait for its job without a thread, and decides what becomes of a job that nobody
waits for any more."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any, Literal, NamedTuple

import falcon

from gateway.errors import RequestRefused, UnknownJob
from gateway.http.deferred_request import RESUMED, DeferredRequest
from gateway.jobs.broker import Broker
from gateway.jobs.cancellation import JobCancellation
from gateway.jobs.job_entry import JobEntry
from gpu_worker.store import process

log = logging.getLogger(__name__)

Policy = Literal["finish", "cancel"]
"""What becomes of a job whose client leaves: SDE_ON_DISCONNECT."""

LOOK_S = 5.0
"""Seconds between two looks at all jobs. A job that was deleted reports no end."""


class Waited(NamedTuple):
    """A job that has ended, and what the route kept while it waited."""

    uuid: str
    state: Any


class _Place(NamedTuple):
    """A request that waits for a job."""

    request: DeferredRequest
    state: Any
    policy: Policy


class JobWaiter:
    """Serves routes that answer when a job has ended. Thread-safe; one thread runs it.

    It is an observer of the broker, which reports each end.

    Args:
        policy: what becomes of a job whose client leaves.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._lock = threading.Lock()
        self._places: dict[str, list[_Place]] = {}
        self._due: queue.SimpleQueue[tuple[str, _Place | None]] = queue.SimpleQueue()

    def start(self, broker: Broker, cancellation: JobCancellation) -> None:
        """Run in a daemon thread. The process ends with it."""
        process.start_thread("waiting requests", lambda: self._run(broker, cancellation))

    def wait(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        uuid: str,
        state: Any = None,
        policy: Policy | None = None,
    ) -> None:
        """Free the thread of this request. The route must return at once.

        The same route is called again for the same request when the job has ended. Then
        waited() returns the uuid and `state`, and the route answers. The body is gone by then.

        Args:
            policy: what becomes of the job if the client leaves; None is the operator's setting.
        """
        resp.context.is_deferred = True
        request = DeferredRequest(req.env, lambda: self._due.put((uuid, place)))
        place = _Place(request, state, policy or self._policy)
        with self._lock:
            self._places.setdefault(uuid, []).append(place)
        self._due.put((uuid, None))  # it may have ended before it was noted here

    def accepted(self, entry: JobEntry) -> None:
        """Do nothing: the client waits for the end."""

    def dispatched(self, entry: JobEntry) -> None:
        """Do nothing: the client waits for the end."""

    def ended(self, entry: JobEntry, record: dict[str, Any], step_s: float | None) -> None:
        """Note that a job has its outcome."""
        self._due.put((entry.job.uuid, None))

    def _run(self, broker: Broker, cancellation: JobCancellation) -> None:
        while True:
            try:
                uuid, left = self._due.get(timeout=LOOK_S)
            except queue.Empty:
                for uuid in list(self._places):
                    self._look(broker, uuid)
                continue
            if left is None:
                self._look(broker, uuid)
            else:
                self._leave(cancellation, uuid, left)

    def _look(self, broker: Broker, uuid: str) -> None:
        """Resume the requests of a job if it has ended."""
        try:
            has_ended = broker.view(uuid).state.ended
        except UnknownJob:  # it was deleted, or has left the table
            has_ended = True
        if not has_ended:
            return
        with self._lock:
            places = self._places.pop(uuid, [])
        for place in places:
            place.request.resume(Waited(uuid, place.state))

    def _leave(self, cancellation: JobCancellation, uuid: str, left: _Place) -> None:
        """Forget a request whose client has left, and cancel the job if nobody else waits."""
        with self._lock:
            others = [place for place in self._places.get(uuid, []) if place is not left]
            if others:
                self._places[uuid] = others
            else:
                self._places.pop(uuid, None)
        if others or left.policy == "finish":
            return
        try:
            cancellation.cancel(uuid)
            log.info("the job %s is canceled, because its client has left", uuid)
        except RequestRefused as error:
            log.info("the job %s of a client that has left goes on: %s", uuid, error)


def waited(req: falcon.Request) -> Waited | None:
    """Return the ended job of a request that is served again; None the first time."""
    value: Waited | None = req.env.get(RESUMED)
    return value
