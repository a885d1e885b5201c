"""Decides on a request before its route: its host, its origin and its sender."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.access.authentication import Authentication, secret_of
from gateway.access.hosts import HostAllowlist
from gateway.access.keyring import Keyring
from gateway.access.origins import OriginCheck
from gateway.access.principal import Principal
from gateway.access.proxies import TrustedProxies
from gateway.access.sessions import Sessions


@dataclass(frozen=True)
class AccessRules:
    """All that decides who may use the service. `cookie` is the name of a session's cookie."""

    proxies: TrustedProxies
    hosts: HostAllowlist
    origins: OriginCheck
    keyring: Keyring
    sessions: Sessions
    authentication: Authentication
    cookie: str

    def check_host(self, environ: dict[str, Any]) -> bool:
        """Check the Host header of a WSGI environ, in which a trusted proxy's reports now stand.

        Returns:
            Whether a proxy forwards the request.

        Raises:
            HostMalformed, UnknownHost: it is not a name of this service.
        """
        is_forwarded = self.proxies.apply(environ)
        host = environ.get("HTTP_HOST")
        if host is not None or environ.get("SERVER_PROTOCOL") != "HTTP/1.0":
            self.hosts.check(host)  # HTTP/1.0 has no Host, and no browser speaks it
        return is_forwarded

    def check_origin(self, environ: dict[str, Any]) -> None:
        """Raises OtherOrigin if a page of another origin sent the request."""
        self.origins.check(
            environ["REQUEST_METHOD"],
            environ.get("HTTP_HOST", ""),
            environ.get("HTTP_ORIGIN"),
            environ.get("HTTP_SEC_FETCH_SITE", ""),
            environ.get("HTTP_SEC_FETCH_MODE", ""),
        )

    def sender(self, environ: dict[str, Any], is_forwarded: bool) -> Principal:
        """Return who sends a request. Raises KeyRequired or TooManyWrongKeys."""
        return self.authentication.principal(
            _secret(environ),
            cookie_value(environ.get("HTTP_COOKIE", ""), self.cookie),
            environ.get("REMOTE_ADDR", ""),
            is_forwarded,
        )

    def admit(self, environ: dict[str, Any]) -> Principal:
        """Check host, origin and key of a request. Raises RequestRefused."""
        is_forwarded = self.check_host(environ)
        self.check_origin(environ)
        return self.sender(environ, is_forwarded)


def _secret(environ: dict[str, Any]) -> str | None:
    """Return the key that a request carries: of Authorization, else of Azure's `api-key`."""
    secret = secret_of(environ.get("HTTP_AUTHORIZATION"))
    return environ.get("HTTP_API_KEY") if secret is None else secret


def cookie_value(header: str, name: str) -> str | None:
    """Return a cookie's value of a Cookie header (RFC 6265, section 4.2), None without it."""
    for pair in header.split(";"):
        key, _, value = pair.strip().partition("=")
        if key == name:
            return value
    return None
