"""Reads IP addresses from text, and says which of them are one client's."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_address(text: str) -> Address | None:
    """Return the address in a text, None if it is none."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def is_loopback_address(text: str) -> bool:
    """Return whether a text is an address of this machine alone."""
    address = parse_address(text)
    return address is not None and address.is_loopback


def network_of(text: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 one, since one host owns a whole /64.

    Another text is returned as it is.
    """
    address = parse_address(text.partition("%")[0])
    if address is None or address.version == 4:
        return text if address is None else str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))
