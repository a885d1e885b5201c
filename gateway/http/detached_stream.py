"""Lets a response outlive the thread of its request, so that a page of events holds no thread.

waitress serves a request in a thread and closes a response without a length afterwards. Here the
connection stays open, and another thread writes to it. waitress's own loop sends what the socket
does not take at once, and notices that the client has left.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from waitress.channel import ClientDisconnected

TASK = "gateway.task"
"""The key of the WSGI environment that holds the task of a request."""

MAX_WAITING_BYTES = 256 << 10
"""A client that has not read so much loses the connection, and reconnects."""


class DetachedConnection:
    """The connection of a response that goes on. One thread at a time writes to it.

    Args:
        write: writes a piece of the response's body.
    """

    def __init__(self, channel: Any, write: Callable[[bytes], None], prefix: str = "") -> None:
        self._channel = channel
        self._write = write
        self.prefix = prefix.encode()

    def send(self, data: bytes) -> bool:
        """Send without waiting; return False if the client has left or does not read."""
        if self._channel.connected and self._channel.total_outbufs_len <= MAX_WAITING_BYTES:
            with contextlib.suppress(ClientDisconnected, OSError):
                self._write(data)
                return True
        self.close()
        return False

    def close(self) -> None:
        """Close the connection soon."""
        self._channel.will_close = True
        self._channel.server.pull_trigger()


class DetachedStream:
    """The body of such a response: its first bytes. `attach` gets the connection behind them.

    Args:
        attach: takes the connection over, and returns False to have it closed.
    """

    def __init__(
        self,
        environ: dict[str, Any],
        first: bytes,
        attach: Callable[[DetachedConnection], bool],
    ) -> None:
        self._first = first
        self._prefix = environ.get("SCRIPT_NAME", "")
        self._attach = attach
        environ[TASK].detached = self

    def __iter__(self) -> Iterator[bytes]:
        yield self._first

    def take_over(self, channel: Any, write: Callable[[bytes], None]) -> None:
        """Hand the connection over; the thread of the request calls it last."""
        connection = DetachedConnection(channel, write, self._prefix)
        if not self._attach(connection):
            connection.close()
