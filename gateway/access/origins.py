"""Decides which web pages may send a request, from the headers that only a browser sets."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gateway.access.hosts import split_host
from gateway.errors import HostMalformed, OtherOrigin

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that change nothing here (RFC 9110, section 9.2.1). TRACE is not served."""

_ORIGIN = re.compile(r"(https?)://([^/?#@]+)")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def parse_origin(text: str) -> tuple[str, str, str]:
    """Return scheme, name and port of a web origin (RFC 6454, section 6.2).

    Raises:
        ValueError: it is not one, such as `null`.
    """
    parts = _ORIGIN.fullmatch(text)
    if parts is None:
        raise ValueError("is not an origin like https://example.org")
    try:
        name, port = split_host(parts[2])
    except HostMalformed:
        raise ValueError("is not an origin like https://example.org") from None
    return parts[1], name, port or _DEFAULT_PORTS[parts[1]]


class OriginCheck:
    """Refuses what a page of another origin sends (Fetch Metadata, W3C).

    A request that changes something needs an Origin of this service if it has one, and `null` is
    none. A page of another site may link to this service, but may not embed what it serves.

    Args:
        allowed: the origins of other pages that may send requests (SDE_ALLOWED_ORIGINS).
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = {parse_origin(text) for text in allowed}

    def is_allowed(self, origin: str | None) -> bool:
        """Return whether an origin stands in SDE_ALLOWED_ORIGINS."""
        try:
            return origin is not None and parse_origin(origin) in self._allowed
        except ValueError:
            return False

    def check(self, method: str, host: str, origin: str | None, site: str, mode: str) -> None:
        """Check a request.

        Args:
            host: the Host header.
            origin: the Origin header, or None.
            site: the Sec-Fetch-Site header, or nothing.
            mode: the Sec-Fetch-Mode header, or nothing.

        Raises:
            OtherOrigin: a page of another origin sent it.
        """
        if self.is_allowed(origin):
            return
        is_change = method not in SAFE_METHODS
        if is_change and origin is not None and not _is_same(origin, host):
            raise OtherOrigin("Origin", origin)
        is_foreign = site in ("cross-site", "same-site")
        if is_foreign and (is_change or mode != "navigate"):
            raise OtherOrigin("Sec-Fetch-Site", site)


def _is_same(origin: str, host: str) -> bool:
    """Compare name and port. The scheme may differ: a proxy that speaks TLS may not report it."""
    try:
        scheme, name, port = parse_origin(origin)
        own_name, own_port = split_host(host)
    except (ValueError, HostMalformed):
        return False
    return (name, port) == (own_name, own_port or _DEFAULT_PORTS[scheme])
