"""Takes the client's address, scheme, host and path prefix from a trusted reverse proxy."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any

from gateway.access.addresses import parse_address

_FORWARDING = re.compile(
    r"HTTP_(?:FORWARDED|VIA|X_FORWARDED_\w+|X_ORIGINAL_\w+|X_REAL_IP|X_CLIENT_IP|X_CLUSTER_CLIENT_IP"
    r"|CLIENT_IP|TRUE_CLIENT_IP|CF_\w+|FASTLY_CLIENT_IP|CDN_LOOP)"
)
"""Headers that reverse proxies and tunnels add (RFC 7239, RFC 9110, and their documentation)."""

_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")


def parse_networks(texts: Iterable[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Return networks from addresses and CIDR blocks.

    Raises:
        ValueError: a text is neither.
    """
    return [ipaddress.ip_network(text, strict=False) for text in texts]


class TrustedProxies:
    """The reverse proxies whose X-Forwarded-* headers count (SDE_TRUSTED_PROXIES).

    Raises:
        ValueError: a text is neither an address nor a CIDR block.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._networks = parse_networks(texts)

    def apply(self, environ: dict[str, Any]) -> bool:
        """Replace what a trusted proxy reports in a WSGI environ (PEP 3333).

        From the right, the first address of X-Forwarded-For that is no trusted proxy is the client.

        Returns:
            Whether a proxy forwards the request, trusted or not. Its sender is on no known machine.
        """
        if not self._trusts(environ.get("REMOTE_ADDR", "")):
            return any(map(_FORWARDING.fullmatch, environ))
        hops = _list(environ.get("HTTP_X_FORWARDED_FOR", ""))
        while hops and self._trusts(hops[-1]):
            hops.pop()
        if hops and parse_address(hops[-1]):
            environ["REMOTE_ADDR"] = hops[-1]
        scheme = _last(environ.get("HTTP_X_FORWARDED_PROTO", ""))
        if scheme in ("http", "https"):
            environ["wsgi.url_scheme"] = scheme
        host = _last(environ.get("HTTP_X_FORWARDED_HOST", ""))
        if host:
            environ["HTTP_HOST"] = host
        prefix = environ.get("HTTP_X_FORWARDED_PREFIX", "").rstrip("/")
        if _PREFIX.fullmatch(prefix):
            environ["SCRIPT_NAME"] = prefix
        return True

    def _trusts(self, text: str) -> bool:
        address = parse_address(text)
        return address is not None and any(address in network for network in self._networks)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _last(text: str) -> str:
    return (_list(text) or [""])[-1]
