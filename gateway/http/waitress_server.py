"""Configures waitress, the HTTP server."""

from __future__ import annotations

from typing import Any

import waitress.server

from gateway.http.waitress_channel import Channel, maintenance

SERVER_THREADS = 40
"""Up to 28 of them wait: 8 for a job's next change (routes/jobs.py), 12 for streams of events
(routes/events.py), 8 for long arrays of records (http/json_array.py)."""

SLACK_BYTES = 1 << 20
"""A body that is up to this much too large is read to its end and refused by falcon."""


def listen(app: Any, host: str, port: int, max_body_bytes: int) -> Any:
    """Return a server that has bound its address.

    Raises:
        OSError: the address cannot be bound.
        ValueError: the host name has no address.
    """
    # waitress is extended through its classes' attributes.
    waitress.server.TcpWSGIServer.channel_class = Channel
    waitress.server.TcpWSGIServer.maintenance = maintenance
    return waitress.server.create_server(
        app,
        host=host,
        port=port,
        threads=SERVER_THREADS,
        connection_limit=500,
        asyncore_use_poll=True,  # select() ends the process beyond ~1000 connections
        backlog=128,
        channel_timeout=30,
        cleanup_interval=2,
        channel_request_lookahead=0,
        max_request_header_size=32768,
        max_request_body_size=max_body_bytes + SLACK_BYTES,
        outbuf_overflow=8 << 20,  # else an image over 1 MB goes through a temporary file
        outbuf_high_watermark=1 << 20,  # of a stream; more would wait in memory
        expose_tracebacks=False,
        ident=None,
    )
