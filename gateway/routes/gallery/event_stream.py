"""GET /events: one stream of server-sent events for everything (HTML standard, section 9.2)."""

from __future__ import annotations

from functools import partial

import falcon

from gateway.access.authentication import Authentication
from gateway.errors import TooManyStreams
from gateway.events.event_hub import EventHub
from gateway.http.access_control import principal
from gateway.http.detached_stream import DetachedStream

MAX_ID_CHARS = 64


class EventStreamResource:
    """Opens the stream of a page. It holds no thread, and ends when the page's key is revoked."""

    def __init__(self, hub: EventHub, authentication: Authentication) -> None:
        self._hub = hub
        self._authentication = authentication

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with text/event-stream, after `Last-Event-ID` if the client sends one."""
        if self._hub.is_full:
            raise TooManyStreams("streams of events", retry_after_s=5)
        resp.content_type = "text/event-stream"
        resp.set_header("Cache-Control", "no-store")
        resp.set_header("X-Accel-Buffering", "no")
        if req.method == "HEAD":
            resp.stream = []  # falcon neither sends nor closes a stream here
            return
        last_id = req.get_header("Last-Event-ID")
        start, text = self._hub.greeting(last_id[:MAX_ID_CHARS] if last_id else None)
        is_admitted = partial(self._authentication.is_valid, principal(req))
        resp.stream = DetachedStream(
            req.env, text, lambda page: self._hub.attach(page, start, is_admitted)
        )
