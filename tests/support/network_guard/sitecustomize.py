"""Refuses and notes every connection that leaves this machine. Python runs it at its start.

It is on the PYTHONPATH of every process of the tests. It sees what Python's own sockets do.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import sys
from typing import Any

LOG = "TEST_NETWORK_LOG"
"""The variable with the file that gets a line for each refused connection."""

_RESERVED = (".invalid", ".test", ".localhost", ".example")
"""Names that are nobody's (RFC 2606). Asking for them asks nobody."""


def leaves(host: object) -> bool:
    """Whether a connection to this host would leave the machine."""
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if not isinstance(host, str):
        return False
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "." in host.rstrip(".") and not host.rstrip(".").endswith(_RESERVED)
    return not (address.is_loopback or address.is_unspecified)


def _host(event: str, arguments: tuple[Any, ...]) -> object:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        return address[0] if isinstance(address, tuple) else None
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        return arguments[0]
    return None


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook (PEP 578)."""
    if not event.startswith("socket."):
        return
    host = _host(event, arguments)
    if not leaves(host):
        return
    sentence = f"{event} to {host!r} by process {os.getpid()}: {' '.join(sys.argv)[:200]}"
    if path := os.environ.get(LOG):
        with open(path, "a", encoding="utf-8") as log:
            log.write(sentence + "\n")
    raise OSError(errno.ENETUNREACH, f"the tests allow no connection: {sentence}")


sys.addaudithook(refuse)
