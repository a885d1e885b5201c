"""Changes waitress where it would wait for ever, or send more than HTTP allows.

It closes the connections of clients that do not read their response, and of clients that speak
TLS. waitress itself waits for both, with its memory and, for a stream, with a thread.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any

import orjson
import waitress.channel
import waitress.server
import waitress.task

from gateway.http.problems import PROBLEM_JSON

log = logging.getLogger(__name__)

STALLED_S = 60.0
"""A client that reads nothing of its response for so long loses the connection."""

MAX_WAITING_BYTES = 256 << 20
"""Bytes of all responses that may wait in memory. Above it STALLED_UNDER_PRESSURE_S applies."""

STALLED_UNDER_PRESSURE_S = 5.0

TLS_HANDSHAKE = b"\x16"
"""The first byte of a TLS connection (RFC 8446, section 5.1), which no HTTP request has."""

SPEAK_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"this port speaks http, not https\n"
)


class ProblemTask(waitress.task.ErrorTask):  # type: ignore[misc]
    """Writes what waitress itself refuses as a problem document."""

    def execute(self) -> None:
        """Write the document and close the connection: the rest of the request is unread."""
        error = self.request.error
        self.status = f"{error.code} {error.reason}"
        document = {
            "type": "about:blank",
            "title": error.reason,
            "status": error.code,
            "detail": str(error.body),
        }
        body = orjson.dumps(document)
        self.response_headers.append(("Content-Type", PROBLEM_JSON))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Task(waitress.task.WSGITask):  # type: ignore[misc]
    """Serves one request. A response to HEAD has no body, so no end of chunks either."""

    def finish(self) -> None:
        """Write what is left of the response (RFC 9112, section 6.3)."""
        if self.request.command == "HEAD":
            if not self.wrote_header:
                self.write(b"")
            self.chunked_response = False
        super().finish()


class Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]
    """A client's connection. `last_activity` is when it last read or sent something."""

    task_class = Task
    error_task_class = ProblemTask
    stalled_since: float | None = None
    """Its `last_activity` when it was seen to take nothing."""

    def received(self, data: bytes) -> bool:
        """Take what a client has sent. A client that speaks TLS is answered at once."""
        if self.request is None and data[:1] == TLS_HANDSHAKE:
            with contextlib.suppress(OSError):
                self.socket.send(SPEAK_HTTP)
            self.handle_close()
            return False
        return bool(super().received(data))

    def write_soon(self, data: Any) -> int:
        """Queue data, in a thread that serves. The client has something to read from now on."""
        if not self.total_outbufs_len:
            self.last_activity = time.time()
        written: int = super().write_soon(data)
        return written

    def writable(self) -> bool:
        """Return whether to poll for writing; the main thread asks before it polls.

        A stalled socket never becomes writable, so it is closed here. A thread that waits for it
        is woken with ClientDisconnected.
        """
        if self.stalled_since is not None and self.stalled_since != self.last_activity:
            self.stalled_since = None  # it has read since
        if self.stalled_since is not None and self.total_outbufs_len:
            log.warning("closed the connection of %s, which does not read its reply", self.addr[0])
            self.handle_close()
            return False
        return bool(super().writable())

    def is_stalled(self, since: float) -> bool:
        """Return whether a response waits and the client has read nothing of it since then."""
        return self.total_outbufs_len > 0 and self.last_activity < since


def maintenance(server: Any, now: float) -> None:
    """Close idle and stalled connections; waitress calls it every `cleanup_interval` seconds.

    waitress's own part closes the idle ones (`channel_timeout`).
    """
    waitress.server.BaseWSGIServer.maintenance(server, now)
    connections = list(server.active_channels.values())
    waiting = sum(connection.total_outbufs_len for connection in connections)
    patience_s = STALLED_S if waiting <= MAX_WAITING_BYTES else STALLED_UNDER_PRESSURE_S
    for connection in connections:
        if connection.is_stalled(now - patience_s):
            connection.stalled_since = connection.last_activity
