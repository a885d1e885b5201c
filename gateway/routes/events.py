"""GET /image/jobs/{uuid}/events: a job's life as server-sent events, until its end.

The format is that of the HTML standard, section 9.2. A stream waits for the broker alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import falcon
import orjson

from gateway.access.authentication import Authentication
from gateway.errors import ResultDeleted, UnknownJob
from gateway.http.access_control import principal
from gateway.http.concurrency_limit import ConcurrencyLimit
from gateway.http.params import parse_uuid
from gateway.jobs.job_entry import JobState, JobView
from gateway.jobs.lookup import JobLookup
from gateway.store.preview_reader import PreviewReader

MAX_STREAMS = 12
"""Streams at a time, each of which keeps a thread (SERVER_THREADS); more are refused with 503."""

RETRY_MS = 1000
HEARTBEAT_S = 15.0
"""A client that has left is noticed when something is written to it."""

LOOK_S = 1.0
"""Seconds between two looks. A preview follows its step a moment later, and the process may be
stopping, so a stream looks again even when no step follows."""

END_ID = 10**12
"""The id of `end`. A client that sends it as Last-Event-ID gets 204 and does not reconnect."""

_RUNNING_ID, _ATTEMPT = 10**9, 10**6
_STEPPED = ("step", "steps", "eta_s")


def event_id(view: JobView) -> int:
    """Return a number that never decreases within a job.

    It follows from the view alone, so it is the same after a restart.
    """
    if view.state.ended:
        return END_ID
    if view.state is JobState.QUEUED:
        return 0
    return _RUNNING_ID + min(view.attempts, 900) * _ATTEMPT + min(view.step, _ATTEMPT - 1)


def message(name: str, number: int, data: object) -> bytes:
    """Return one event on the wire. JSON has no line breaks."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, name.encode(), orjson.dumps(data))


class EventStream:
    """A client's stream, a WSGI iterable. It keeps its place until it is closed."""

    def __init__(
        self,
        preview_url: str,
        last_id: int,
        look: Callable[[float, JobView | None], JobView],
        preview: Callable[[], int | None],
        leave: Callable[[], None],
        stopping: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = preview_url
        self._id = last_id
        self._look = look
        self._preview = preview
        self._leave = leave
        self._stopping = stopping
        self._clock = clock

    def close(self) -> None:
        """Free the place. waitress always calls it, even when nothing was sent."""
        self._leave()

    def __iter__(self) -> Iterator[bytes]:
        """Yield the state now, then each change, and last `end`.

        A process that stops ends the stream earlier, and the client reconnects.
        """
        try:
            yield b"retry: %d\n\n" % RETRY_MS
            yield from self._events()
        except (UnknownJob, ResultDeleted):
            return  # it was deleted between two looks, so it had ended
        finally:
            self.close()

    def _events(self) -> Iterator[bytes]:
        sent: JobView | None = None
        sent_preview: int | None = None
        last_write = self._clock()
        while not self._stopping():
            view = self._look(0.0 if sent is None else self._pause_s(last_write), sent)
            name = _name(sent, view)
            if name is not None:
                yield self._message(name, view, view.json())
                sent, last_write = view, self._clock()
            if name == "end":
                return
            preview = self._preview() if view.state is JobState.RUNNING else None
            if preview is not None and preview != sent_preview:
                yield self._message("preview", view, {"url": self._url})
                sent_preview, last_write = preview, self._clock()
            if self._clock() - last_write >= HEARTBEAT_S:
                yield b": still here\n\n"
                last_write = self._clock()

    def _pause_s(self, last_write: float) -> float:
        return min(LOOK_S, max(0.01, HEARTBEAT_S - (self._clock() - last_write)))

    def _message(self, name: str, view: JobView, data: object) -> bytes:
        # After a restart the gateway does not know the step yet.
        self._id = max(self._id, event_id(view))
        return message(name, self._id, data)


def _name(sent: JobView | None, view: JobView) -> str | None:
    """Return the name of the event for a difference; None if no client needs it."""
    if view.state.ended:
        return "end"
    if sent is None:
        return "state"
    before, now = sent.json(), view.json()
    changed = {name for name in now if now[name] != before[name]}
    if not changed - {"eta_s"}:
        return None
    return "progress" if changed <= set(_STEPPED) else "state"


class EventsResource:
    """Serves at most MAX_STREAMS streams at a time."""

    def __init__(
        self,
        lookup: JobLookup,
        previews: PreviewReader,
        authentication: Authentication,
        stopping: threading.Event,
    ) -> None:
        self._authentication = authentication
        self._lookup = lookup
        self._previews = previews
        self._stopping = stopping
        self._streams = ConcurrencyLimit(MAX_STREAMS, "streams of events", retry_after_s=1)

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Answer with text/event-stream; or 204, which stops a client that has seen `end`."""
        uuid = parse_uuid(uuid, "uuid")
        last = req.get_header("Last-Event-ID") or ""
        last_id = int(last) if last.isascii() and last.isdigit() and len(last) < 16 else 0
        if self._lookup.view(uuid).state.ended and last_id >= END_ID:
            resp.status = falcon.HTTP_NO_CONTENT
            return
        sender = principal(req)
        resp.content_type = "text/event-stream"
        resp.set_header("Cache-Control", "no-store")
        resp.set_header("X-Accel-Buffering", "no")
        if req.method == "HEAD":
            resp.stream = []  # falcon neither sends nor closes a stream here
            return
        resp.stream = EventStream(
            f"{req.root_path}/image/jobs/{uuid}/preview",
            min(last_id, END_ID - 1),
            lambda wait_s, sent: self._lookup.view(uuid, wait_s, sent),
            lambda: self._previews.version(uuid),
            self._streams.acquire(),
            lambda: self._stopping.is_set() or not self._authentication.is_valid(sender),
        )
