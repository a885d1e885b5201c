"""Changes waitress's connections where they would wait for ever, or send more than HTTP allows.

A client that sends its request too slowly, reads nothing of its response, or speaks TLS loses the
connection. waitress itself waits for all of them.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from typing import Any

import waitress.channel

from gateway.access.addresses import network_of
from gateway.access.rules import AccessRules
from gateway.errors import RequestRefused
from gateway.http.deferred_request import DeferredRequest
from gateway.http.server.limits import HttpLimits, UploadBudget
from gateway.http.server.parser import Parser, Refused
from gateway.http.server.task import ProblemTask, Task

log = logging.getLogger(__name__)

TLS_HANDSHAKE = b"\x16"
"""The first byte of a TLS connection (RFC 8446, section 5.1), which no HTTP request has."""

SPEAK_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"this port speaks http, not https\n"
)

HEADER_TIMEOUT_S = 10.0
"""The seconds in which a header must be there. The request timeout is the limit of this one."""

DRAIN_S = 5.0
"""How long the rest of a refused body is read and dropped. A socket that is closed with unread
bytes resets the connection, and the client may lose the answer."""

HEADER_RECV_BYTES = 4 << 10
FEW_REQUESTS, FEW_RECV_BYTES = 8, 512
"""A connection that has sent more requests at a time is read in smaller pieces from then on, so
that it keeps the main thread no longer than others."""

BODY_RECV_BYTES = 256 << 10

MAX_SEND_BYTES = 256 << 10
"""The most that is copied for one call of send. A socket's buffer may be ten times as large."""

UNREAD_BYTES = 64 << 10
"""The next request of a connection is served when less than this is unsent."""


class Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]
    """A client's connection. `last_activity` is when it last read or sent something.

    `waiting_since` is when the client's turn to send a request began. `request_since` is when the
    first byte of an incomplete request came. Both are times of the monotonic clock.
    """

    requests: list[Any]
    sendbuf_len: int
    close_when_flushed: bool
    task_class = Task
    error_task_class = ProblemTask
    stalled_since: float | None = None
    """Its `last_activity` when it was seen to take nothing."""

    sending_since = 0.0
    request_since: float | None = None
    request_bytes = 0
    header_recv_bytes = HEADER_RECV_BYTES
    is_answered = False
    is_deferred = False
    """Whether a request waits until the responses before it have been sent."""

    is_detached = False
    """Whether another thread writes to it, without a request (http/detached_stream.py)."""

    deferred: DeferredRequest | None = None
    """Its first request, where that waits without a thread (http/deferred_request.py)."""

    draining_since: float | None = None
    has_unread_body = False

    def __init__(self, server: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(server, *arguments, **options)
        budget: UploadBudget = server.uploads
        self.parser_class = lambda adj: Parser(adj, budget, self._refusal_of)
        self.sendbuf_len = min(self.sendbuf_len, MAX_SEND_BYTES)
        self.waiting_since = time.monotonic()
        self.network = network_of(self.addr[0])

    def _refusal_of(self, request: Parser) -> Refused | None:
        """Return why the sender of a request, of which the header has come, is not admitted."""
        access: AccessRules | None = self.server.access
        if access is None:
            return None
        environ = {f"HTTP_{name}": value for name, value in request.headers.items()} | {
            "REMOTE_ADDR": self.addr[0],
            "REQUEST_METHOD": request.command,
            "SERVER_PROTOCOL": f"HTTP/{request.version}",
        }
        try:
            access.admit(environ)
            return None
        except RequestRefused as refusal:
            return Refused(refusal.status, refusal.title, refusal.detail, refusal.retry_after_s)

    @property
    def is_waiting(self) -> bool:
        """Return whether the client owes a request: it is idle, incomplete, or being drained."""
        if self.draining_since is not None:
            return True
        return not (
            self.is_detached
            or self.requests
            or self.total_outbufs_len
            or self.will_close
            or self.close_when_flushed
        )

    # ---- receiving ------------------------------------------------------------------------------

    def readable(self) -> bool:
        """Return whether to poll for reading. While a request waits, its client may leave."""
        if self.draining_since is not None:
            return True
        if self.deferred is not None:
            return len(self.requests) == 1 and not self.will_close
        return bool(super().readable())

    def handle_read(self) -> None:
        """Read what has come. A body is read in larger pieces than a header."""
        in_body = self.request is not None and self.request.body_rcv is not None
        size = BODY_RECV_BYTES if in_body or self.draining_since else self.header_recv_bytes
        try:
            data = self.recv(size)
        except BlockingIOError:
            return
        except OSError:
            self.handle_close()
            return
        if not data:
            self.connected = False
        elif self.draining_since is None:
            self.last_activity = time.time()
            self.received(data)

    def received(self, data: bytes) -> bool:
        """Take what a client has sent. A client that speaks TLS is answered at once."""
        if self.is_detached:
            return False  # its response goes on, so it has nothing to say
        if self.request is None and data[:1] == TLS_HANDSHAKE:
            self.close_with(SPEAK_HTTP)
            return False
        if self.request_since is None:
            self.request_since, self.request_bytes = time.monotonic(), 0
        self.request_bytes += len(data)
        result = bool(super().received(data))
        if self.request is None:
            self.request_since = None
        if len(self.requests) > FEW_REQUESTS:
            self.header_recv_bytes = FEW_RECV_BYTES
        return result

    def is_overdue(self, now: float, limits: HttpLimits) -> bool:
        """Return whether a request, or its header, should have been complete by now."""
        if self.request_since is None or self.request is None:
            return False
        timeout_s = limits.request_timeout_s
        if not self.request.headers_finished:
            timeout_s = min(timeout_s, HEADER_TIMEOUT_S)
        return now - self.request_since > timeout_s

    # ---- sending --------------------------------------------------------------------------------

    def service(self) -> None:
        """Serve a request, in a thread of the pool, unless earlier responses still wait.

        A thread would wait for a client that pipelines and does not read.
        """
        if self.is_detached:
            self._drop_requests()
            return
        if self.deferred is not None:
            # The pool has no other task of this connection now, and gets none before it resumes.
            self.deferred.begin(self._resume)
            return
        if self.total_outbufs_len > UNREAD_BYTES:
            self.is_deferred = True
            self.server.pull_trigger()
            return
        self.is_answered = False
        if self.requests[0].error is not None:
            self.has_unread_body = True
        super().service()
        self.waiting_since = time.monotonic()

    def _drop_requests(self) -> None:
        """Forget the requests that were pipelined behind one whose response goes on."""
        with self.requests_lock:
            for request in self.requests:
                request.close()
            self.requests = []

    def defer(self, request: Any, deferred: DeferredRequest) -> None:
        """Have a request wait that its thread leaves. The thread calls it last."""
        with self.requests_lock:
            self.requests.insert(0, request)  # waitress removes one of the two
        self.deferred = deferred
        if not self.connected:
            deferred.leave()

    def _resume(self, value: object) -> None:
        """Serve the request that has waited again."""
        request, self.deferred = self.requests[0], None
        request.resumed, request.body_rcv = value, None
        self.server.add_task(self)

    def _flush_outbufs_below_high_watermark(self) -> None:
        """Wait while a stream is ahead of its reader. waitress also waits between requests."""
        if not self.is_answered:
            super()._flush_outbufs_below_high_watermark()

    def write_soon(self, data: Any) -> int:
        """Queue data, in a thread that serves. The client has something to read from now on."""
        if not self.total_outbufs_len:
            self.last_activity = time.time()
            self.sending_since = time.monotonic()
        written: int = super().write_soon(data)
        return written

    def writable(self) -> bool:
        """Return whether to poll for writing; the main thread asks before it polls.

        A stalled socket never becomes writable, so it is closed here. A thread that waits for it
        is woken with ClientDisconnected.
        """
        if self.draining_since is not None:
            return False
        if self.stalled_since is not None and self.stalled_since != self.last_activity:
            self.stalled_since = None  # it has read since
        if self.stalled_since is not None and self.total_outbufs_len:
            log.warning("closed the connection of %s, which does not read its reply", self.addr[0])
            self.handle_close()
            return False
        return self.is_deferred or bool(super().writable())

    def handle_write(self) -> None:
        """Send what waits. After a refusal the unread rest of the request is dropped."""
        if self.is_deferred and self.total_outbufs_len <= UNREAD_BYTES:
            self.is_deferred = False
            self.server.add_task(self)
        if self.is_detached:
            with self.outbuf_lock:  # waitress itself takes no lock when there is no request
                super().handle_write()
            return
        if not (self.close_when_flushed and self.has_unread_body):
            super().handle_write()
            return
        self._flush_exception(self._flush_some)
        if self.will_close:
            self.handle_close()
        elif self.connected and not self.total_outbufs_len:
            self.close_when_flushed = False
            self.draining_since = time.monotonic()
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)

    def is_stalled(self, since: float) -> bool:
        """Return whether a response waits and the client has read nothing of it since then."""
        return self.total_outbufs_len > 0 and self.last_activity < since

    # ---- closing --------------------------------------------------------------------------------

    def close_with(self, reply: bytes) -> None:
        """Close the connection. The reply is sent if the socket takes it at once."""
        with contextlib.suppress(OSError):
            self.socket.send(reply)
            self.socket.shutdown(socket.SHUT_WR)
        self.handle_close()

    def handle_close(self) -> None:
        """Close the socket and free what the request holds."""
        if self.request is not None:
            self.request.close()
        if self.deferred is not None:
            self.deferred.leave()
        if self.is_deferred or self.deferred is not None:  # no thread will close them
            for request in self.requests:
                request.close()
        super().handle_close()
