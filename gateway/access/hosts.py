"""Decides which Host headers are names of this service, so that DNS rebinding fails."""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from collections.abc import Callable, Iterable

import psutil

from gateway.access.addresses import Address, parse_address
from gateway.errors import HostMalformed, UnknownHost

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

ADDRESSES_S = 10.0
"""How long the list of the machine's own addresses is used. A laptop changes its network."""

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")


def split_host(text: str) -> tuple[str, str]:
    """Return name and port (or nothing) of a Host header: lower case, IPv6 without brackets.

    Raises:
        HostMalformed: it is not `name[:port]` (RFC 9110, section 7.2).
    """
    parts = _HOST.fullmatch(text)
    if parts is None:
        raise HostMalformed(text)
    name = parts[1].strip("[]").lower()
    address = parse_address(name)
    if parts[1].startswith("[") and address is None:
        raise HostMalformed(text)
    return str(address) if address else name, parts[2] or ""


def is_loopback(host: str) -> bool:
    """Return whether a listening address, or every address of its name, is of loopback alone."""
    addresses = _resolve(host)
    return bool(addresses) and all(address.is_loopback for address in addresses)


def has_address(host: str) -> bool:
    """Return whether the text is an address, or a name that has one."""
    return bool(_resolve(host))


def _resolve(host: str) -> list[Address]:
    literal = parse_address(host)
    if literal is not None:
        return [literal]
    try:
        infos = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return []
    return [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in infos]


def public_name(host: str) -> str:
    """Return the name under which others reach an address to listen on."""
    address = parse_address(host)
    return socket.gethostname() if address is not None and address.is_unspecified else host


class HostAllowlist:
    """The exact names of this service.

    They are the loopback names, the address to listen on, and `further`. A service that listens on
    all addresses also has the machine's name and its own addresses.

    Args:
        host: the address to listen on (SDE_HOST).
        further: names, each with or without a port (SDE_ALLOWED_HOSTS).
        own_addresses: returns the addresses of the machine's interfaces.
    """

    def __init__(
        self,
        host: str,
        further: Iterable[str] = (),
        own_addresses: Callable[[], frozenset[str]] | None = None,
    ) -> None:
        self._names = {(name, "") for name in LOOPBACK}
        self._names.update(map(split_host, further))
        address = parse_address(host)
        self._own_addresses: Callable[[], frozenset[str]] = frozenset
        if address is not None and address.is_unspecified:
            machine = socket.gethostname().lower()
            self._names |= {(machine, ""), (f"{machine}.local", "")}
            self._own_addresses = own_addresses or MachineAddresses()
        else:
            self._names.add((str(address) if address else host.lower(), ""))

    def check(self, header: str | None) -> None:
        """Raises HostMalformed or UnknownHost if the header is not a name of this service."""
        if header is None:
            raise HostMalformed(None)
        name, port = split_host(header)
        if not {(name, ""), (name, port)} & self._names and name not in self._own_addresses():
            raise UnknownHost(header)


class MachineAddresses:
    """The addresses of the machine's interfaces, read again every ADDRESSES_S seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._addresses: frozenset[str] = frozenset()
        self._read_at = -ADDRESSES_S

    def __call__(self) -> frozenset[str]:
        """Return them in canonical form."""
        if self._clock() - self._read_at >= ADDRESSES_S:
            self._read_at = self._clock()
            texts = (each.address for card in psutil.net_if_addrs().values() for each in card)
            parsed = (parse_address(text.partition("%")[0]) for text in texts)
            self._addresses = frozenset(str(address) for address in parsed if address)
        return self._addresses
