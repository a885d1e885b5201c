"""waitress's connection, and how long it bears a client that does not read what it is sent.

waitress itself waits without end, with a thread where a reply is a stream, and with its memory.
"""

from __future__ import annotations

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
"""A client that takes nothing of its reply for so long loses the connection."""

MAX_WAITING_BYTES = 256 << 20
"""Of replies to all clients, so much may wait in memory; beyond it patience is HURRIED_S."""

STALLED_UNDER_PRESSURE_S = 5.0


class ProblemTask(waitress.task.ErrorTask):  # type: ignore[misc]
    """waitress's answer to what it refuses, in our shape."""

    def execute(self) -> None:
        """Write it and close the connection: the rest of the request was not read."""
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


class Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]
    """One client's. `last_activity` is when it last took or sent something."""

    error_task_class = ProblemTask
    stalled_since: float | None = None
    """Its `last_activity` when it was seen to take nothing."""

    def write_soon(self, data: Any) -> int:
        """In a thread that serves: from now on something waits to be taken."""
        if not self.total_outbufs_len:
            self.last_activity = time.time()
        written: int = super().write_soon(data)
        return written

    def writable(self) -> bool:
        """In the main thread, before it polls. A socket that takes nothing never becomes writable:
        it is closed here, and a thread that waits for it is woken with ClientDisconnected."""
        if self.stalled_since is not None and self.stalled_since != self.last_activity:
            self.stalled_since = None  # it has read meanwhile
        if self.stalled_since is not None and self.total_outbufs_len:
            log.warning("closed the connection of %s, which does not read its reply", self.addr[0])
            self.handle_close()
            return False
        return bool(super().writable())

    def takes_nothing(self, since: float) -> bool:
        """Whether a reply waits, and the client has taken nothing of it since then."""
        return self.total_outbufs_len > 0 and self.last_activity < since


def maintenance(server: Any, now: float) -> None:
    """What a server does every `cleanup_interval` seconds: waitress's own, which lets go of who
    asks nothing (`channel_timeout`), and then of who does not read."""
    waitress.server.BaseWSGIServer.maintenance(server, now)
    connections = list(server.active_channels.values())
    waiting = sum(connection.total_outbufs_len for connection in connections)
    patience_s = STALLED_S if waiting <= MAX_WAITING_BYTES else STALLED_UNDER_PRESSURE_S
    for connection in connections:
        if connection.takes_nothing(now - patience_s):
            connection.stalled_since = connection.last_activity
