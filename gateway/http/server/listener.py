"""Configures waitress, the HTTP server, and decides which connection ends when there are too many.

A new connection is always accepted, and another one is closed for it.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import resource
import sys
import time
from typing import Any, ClassVar

import waitress.server
import waitress.wasyncore

from gateway.access.addresses import network_of
from gateway.access.rules import AccessRules
from gateway.http.error_shapes import ErrorShapes
from gateway.http.server.channel import DRAIN_S, Channel
from gateway.http.server.connection_table import ConnectionTable
from gateway.http.server.limits import HttpLimits, UploadBudget
from gateway.http.server.parser import Refused
from gateway.http.server.task import refusal

log = logging.getLogger(__name__)

SERVER_THREADS = 76
"""Up to 66 of them wait: 8 for a job's next change (routes/jobs.py), 12 for streams of one job's
events (routes/events.py), 8 for long arrays of records (http/json_array.py), 18 for their turn to
read a body or an image (admission/turns.py), 4 for archives (routes/gallery/zip_archive.py), 16 for
thumbnails (routes/gallery/thumbnails.py). A page's stream of all events holds none."""

URGENT = frozenset(("/healthz", "/readyz", "/server/status"))
"""Paths that are answered at once, however many large requests wait."""

SLACK_BYTES = 1 << 20
"""A body that is up to this much too large is read to its end and refused by falcon."""

STALLED_S = 60.0
"""A client that reads nothing of its response for so long loses the connection."""

MAX_WAITING_BYTES = 256 << 20
"""Bytes of all responses that may wait in memory. Above it STALLED_UNDER_PRESSURE_S applies."""

STALLED_UNDER_PRESSURE_S = 5.0

ACCEPTS_AT_ONCE = 128
ACCEPT_PAUSE_S = 0.05
"""The pause when no connection can be accepted, for example for want of descriptors."""

LOOP_S = 0.05
"""The longest sleep of the main thread, which looks at clocks when it wakes."""

SWITCH_S = 0.001
"""How long a thread keeps Python's lock while others wait, of which the main thread is one."""

LOG_PAUSE_S = 10.0
RESERVED_DESCRIPTORS = 160
"""Descriptors for the index (one connection a thread), the log, the workers and input images."""

LEAST_CONNECTIONS = 8
_OVERDUE = Refused(408, "Request Timeout", "the request did not arrive in time")
_CROWDED = Refused(503, "Service Unavailable", "too many connections are open", 1)
_NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Server(waitress.server.TcpWSGIServer):  # type: ignore[misc]
    """Listens on one address. All addresses of the process share `limits` and `uploads`."""

    next_channel_cleanup: float
    channel_class = Channel
    limits: ClassVar[HttpLimits] = HttpLimits()
    uploads: ClassVar[UploadBudget] = UploadBudget(HttpLimits().max_uploads_bytes)
    access: ClassVar[AccessRules | None] = None
    error_shapes: ClassVar[ErrorShapes] = ErrorShapes()
    _accept_after = 0.0
    _log_after = 0.0
    _unlogged = 0

    @property
    def connections(self) -> list[Channel]:
        """Return the open connections of all addresses."""
        return [each for each in list(self._map.values()) if isinstance(each, Channel)]

    def readable(self) -> bool:
        """Return whether to accept connections. waitress asks before each poll."""
        now = time.time()
        if now >= self.next_channel_cleanup:
            self.next_channel_cleanup = now + self.adj.cleanup_interval
            self.maintenance(now)
        return bool(self.accepting) and time.monotonic() >= self._accept_after

    def handle_accept(self) -> None:
        """Accept the connections that wait, up to ACCEPTS_AT_ONCE."""
        table = ConnectionTable(self.connections, self.limits)
        if table.is_full:
            self._accept_after = time.monotonic() + ACCEPT_PAUSE_S
        for _ in range(ACCEPTS_AT_ONCE):
            if table.is_full:
                return
            try:
                pair = self.accept()
            except OSError as error:
                if error.errno in _NO_RESOURCES:
                    self._spare_resources(table, error)
                return
            if pair is None:
                return
            self._admit(table, *pair)

    def add_task(self, task: Any) -> None:
        """Queue a request for the pool of threads. Those of URGENT are served before the others."""
        super().add_task(task)
        pool = self.task_dispatcher
        if not _is_urgent(task):
            return
        with pool.lock:
            if pool.queue and pool.queue[-1] is task:
                pool.queue.pop()
                others = (place for place, each in enumerate(pool.queue) if not _is_urgent(each))
                pool.queue.insert(next(others, len(pool.queue)), task)

    def _admit(self, table: ConnectionTable, connection: Any, address: Any) -> None:
        network = network_of(address[0])
        for chosen in table.superfluous(network):
            self._log("closed a connection, because too many are open", chosen.addr[0])
            is_sending = chosen.request_since is not None
            chosen.close_with(refusal(_CROWDED, chosen.request, self) if is_sending else b"")
        try:
            self.set_socket_options(connection)
            channel = Channel(self, connection, address, self.adj, map=self._map)
        except OSError:  # the client has closed it already
            connection.close()
            return
        table.add(network)
        # Most requests have come by now. They are taken before the next connection is accepted.
        waitress.wasyncore.read(channel)

    def handle_error(self) -> None:
        """Log an unexpected error and listen on. waitress would close the socket that listens."""
        self._log("accepting a connection failed", str(sys.exception()))

    def _spare_resources(self, table: ConnectionTable, error: OSError) -> None:
        """Close a connection that is waiting, and accept nothing for a moment."""
        self._log("cannot accept a connection", str(error.strerror))
        chosen = table.any_idle()
        if chosen is not None:
            chosen.close_with(b"")
        self._accept_after = time.monotonic() + ACCEPT_PAUSE_S

    def _log(self, sentence: str, subject: str) -> None:
        """Log at most one line in LOG_PAUSE_S, whatever happens."""
        self._unlogged += 1
        if time.monotonic() >= self._log_after:
            log.warning("%s: %s (%d times)", sentence, subject, self._unlogged)
            self._log_after, self._unlogged = time.monotonic() + LOG_PAUSE_S, 0

    def maintenance(self, now: float) -> None:
        """Close idle, overdue and stalled connections, every `cleanup_interval` seconds.

        waitress's own part closes the idle ones (`channel_timeout`).
        """
        super().maintenance(now)
        self._end_overdue(time.monotonic())
        connections = list(self.active_channels.values())
        waiting = sum(connection.total_outbufs_len for connection in connections)
        patience_s = STALLED_S if waiting <= MAX_WAITING_BYTES else STALLED_UNDER_PRESSURE_S
        for connection in connections:
            if connection.is_stalled(now - patience_s):
                connection.stalled_since = connection.last_activity

    def _end_overdue(self, now: float) -> None:
        for connection in list(self.active_channels.values()):
            if connection.draining_since is not None:
                if now - connection.draining_since > DRAIN_S:
                    connection.handle_close()
            elif connection.is_overdue(now, self.limits):
                connection.close_with(refusal(_OVERDUE, connection.request, self))


def _is_urgent(task: Any) -> bool:
    """Return whether a connection waits for one of URGENT alone: one that pipelines may wait."""
    first, *others = task.requests[:2] or [None]
    return not others and getattr(first, "path", "") in URGENT


def listen(
    app: Any,
    host: str,
    port: int,
    limits: HttpLimits,
    path_prefix: str = "",
    access: AccessRules | None = None,
    error_shapes: ErrorShapes | None = None,
) -> Any:
    """Return a server that has bound its address.

    Args:
        path_prefix: the path that comes before each route's, such as /sd; it may be absent.
        access: decides who may send a large body; None admits everybody.
        error_shapes: decides the form of what the server itself refuses.

    Raises:
        OSError: the address cannot be bound.
        ValueError: the host name has no address.
    """
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    sys.setswitchinterval(SWITCH_S)
    Server.limits = limits
    Server.uploads = UploadBudget(limits.max_uploads_bytes)
    Server.access = access
    Server.error_shapes = error_shapes or ErrorShapes()
    # create_server() takes the class from its module.
    waitress.server.TcpWSGIServer = Server
    server = waitress.server.create_server(
        app,
        host=host,
        port=port,
        threads=SERVER_THREADS,
        connection_limit=1 << 20,  # ConnectionTable decides
        asyncore_use_poll=True,  # select() ends the process beyond ~1000 connections
        backlog=4096,
        channel_timeout=30,
        cleanup_interval=1,
        channel_request_lookahead=0,
        max_request_header_size=limits.max_header_bytes,
        max_request_body_size=limits.max_body_bytes + SLACK_BYTES,
        inbuf_overflow=1 << 62,  # nothing goes through the temporary folder
        outbuf_overflow=1 << 62,
        outbuf_high_watermark=1 << 20,  # of a stream; more would wait in memory
        url_prefix=path_prefix,
        clear_untrusted_proxy_headers=False,  # access/proxies.py reads them
        log_socket_errors=False,
        expose_tracebacks=False,
        ident=None,
    )
    server.adj.asyncore_loop_timeout = LOOP_S
    Server.limits = dataclasses.replace(limits, max_connections=affordable(limits.max_connections))
    return server


def affordable(connections: int) -> int:
    """Return how many connections the limit of descriptors allows, after raising it if possible."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections * 2 + RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return connections
    reserved = min(RESERVED_DESCRIPTORS, soft // 2)
    return max(LEAST_CONNECTIONS, min(connections, soft - reserved - _open_descriptors()))


def _open_descriptors() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(folder))  # noqa: PTH208
        except OSError:
            continue
    return 0
