"""GET /image/jobs/{uuid}/events: a job's life as server-sent events, until its end.

The format is the HTML standard's, section 9.2. A stream waits for the broker, and asks no worker.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import falcon
import orjson

from gateway.errors import ResultDeleted, UnknownJob
from gateway.http.concurrency_limit import ConcurrencyLimit
from gateway.http.params import parse_uuid
from gateway.jobs.job_entry import JobState
from gateway.routes.jobs import JobLookup
from gateway.routes.preview import Previews

View = dict[str, Any]

MAX_STREAMS = 12
"""Of the gateway's threads (SERVER_THREADS), so many may serve streams; beyond them 503."""

RETRY_MS = 1000
HEARTBEAT_S = 15.0
"""A client that has gone is noticed when something is written to it."""

LOOK_S = 1.0
"""A preview is written just after its step is told, and the process may be asked to stop: look
again even if no step follows soon."""

END_ID = 10**12
"""The id of `end`, whatever came before: who has seen it is told to stay away."""

_RUNNING_ID, _ATTEMPT = 10**9, 10**6
_STEPPED = ("step", "steps", "eta_s")


def event_id(view: View) -> int:
    """Grows with the job and follows from its state alone, so that it survives a restart."""
    state = JobState(view["state"])
    if state.ended:
        return END_ID
    if state is JobState.QUEUED:
        return 0
    attempts, step = int(view["attempts"]), int(view["step"])
    return _RUNNING_ID + min(attempts, 900) * _ATTEMPT + min(step, _ATTEMPT - 1)


def message(name: str, number: int, data: object) -> bytes:
    """One event; JSON has no line breaks."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, name.encode(), orjson.dumps(data))


class EventStream:
    """One client's stream: a WSGI iterable. It keeps a place until it is closed."""

    def __init__(
        self,
        uuid: str,
        last_id: int,
        look: Callable[[float, View | None], View],
        preview: Callable[[], int | None],
        leave: Callable[[], None],
        stopping: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = f"/image/jobs/{uuid}/preview"
        self._id = last_id
        self._look = look
        self._preview = preview
        self._leave = leave
        self._stopping = stopping
        self._clock = clock

    def close(self) -> None:
        """Free the place; waitress calls it whatever became of the client, also before a start."""
        self._leave()

    def __iter__(self) -> Iterator[bytes]:
        """First the state as it is now, then what changes, last `end`; a process that stops ends it
        before that, and the client comes again."""
        try:
            yield b"retry: %d\n\n" % RETRY_MS
            yield from self._events()
        except (UnknownJob, ResultDeleted):
            return  # deleted between two looks: it had ended
        finally:
            self.close()

    def _events(self) -> Iterator[bytes]:
        told: View | None = None
        drawn: int | None = None
        spoke = self._clock()
        while not self._stopping():
            view = self._look(0.0 if told is None else self._pause_s(spoke), told)
            name = _name(told, view)
            if name is not None:
                yield self._message(name, view, view)
                told, spoke = view, self._clock()
            if name == "end":
                return
            version = self._preview() if view["state"] == JobState.RUNNING else None
            if version is not None and version != drawn:
                yield self._message("preview", view, {"url": self._url})
                drawn, spoke = version, self._clock()
            if self._clock() - spoke >= HEARTBEAT_S:
                yield b": still here\n\n"
                spoke = self._clock()

    def _pause_s(self, spoke: float) -> float:
        return min(LOOK_S, max(0.01, HEARTBEAT_S - (self._clock() - spoke)))

    def _message(self, name: str, view: View, data: object) -> bytes:
        # A gateway that has just been restarted has not heard of the step yet.
        self._id = max(self._id, event_id(view))
        return message(name, self._id, data)


def _name(told: View | None, view: View) -> str | None:
    """What to call the difference; None when there is none to speak of."""
    if JobState(view["state"]).ended:
        return "end"
    if told is None:
        return "state"
    changed = {key for key in view if view[key] != told[key]}
    if not changed - {"eta_s"}:
        return None
    return "progress" if changed <= set(_STEPPED) else "state"


class EventsResource:
    """Serves so many streams at a time."""

    def __init__(
        self, whereabouts: JobLookup, previews: Previews, stopping: threading.Event
    ) -> None:
        self._whereabouts = whereabouts
        self._previews = previews
        self._stopping = stopping
        self._places = ConcurrencyLimit(MAX_STREAMS, "streams of events", retry_after_s=1)

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """text/event-stream; 204 for who has seen the end: so a browser stops asking."""
        uuid = parse_uuid(uuid, "uuid")
        last = req.get_header("Last-Event-ID") or ""
        last_id = int(last) if last.isascii() and last.isdigit() and len(last) < 16 else 0
        ended = JobState(self._whereabouts.view(uuid)["state"]).ended
        if ended and last_id >= END_ID:
            resp.status = falcon.HTTP_NO_CONTENT
            return
        resp.content_type = "text/event-stream"
        resp.set_header("Cache-Control", "no-store")
        resp.set_header("X-Accel-Buffering", "no")
        if req.method == "HEAD":
            resp.stream = []  # falcon sends nothing of a stream, and closes none
            return
        resp.stream = EventStream(
            uuid,
            min(last_id, END_ID - 1),
            lambda wait_s, told: self._whereabouts.view(uuid, wait_s, told),
            lambda: self._previews.version(uuid),
            self._places.take(),
            self._stopping.is_set,
        )
