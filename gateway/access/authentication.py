"""Turns the credentials of a request into a principal."""

from __future__ import annotations

import base64
import binascii

from gateway.access.addresses import is_loopback_address
from gateway.access.failure_limit import FailureLimit
from gateway.access.keyring import Keyring
from gateway.access.principal import ANONYMOUS, LOCAL, Principal
from gateway.access.sessions import Sessions
from gateway.errors import KeyRequired


class Authentication:
    """Decides who sends a request. Thread-safe.

    A key is required as soon as one was made, and always where the service listens beyond loopback.

    Args:
        is_local: the service listens on loopback alone.
        allow_anonymous: requests without a key are admitted (SDE_ALLOW_ANONYMOUS).
    """

    def __init__(
        self,
        keyring: Keyring,
        sessions: Sessions,
        failures: FailureLimit,
        is_local: bool,
        allow_anonymous: bool,
    ) -> None:
        self._keyring = keyring
        self._sessions = sessions
        self._failures = failures
        self._is_local = is_local
        self._allow_anonymous = allow_anonymous

    def principal(
        self, secret: str | None, token: str | None, address: str, is_forwarded: bool
    ) -> Principal:
        """Return the sender of a request.

        Args:
            secret: the key that the request carries, or None.
            token: the token of its session, or None. A stale one counts as no key.
            address: the client's IP address.
            is_forwarded: a proxy forwards the request.

        Raises:
            KeyRequired: a key is required, and this is none.
            TooManyWrongKeys: the address has sent too many wrong ones.
        """
        without_key = self._without_key(address, is_forwarded)
        if without_key is not None and self._keyring.is_empty:
            return without_key  # programs that cannot leave the key out send any text
        if secret is not None:
            key = self._keyring.match(secret)
            self._failures.check(address, key.name if key else None)
            if key is None:
                raise KeyRequired()
            return key.principal
        session = None if token is None else self._of_session(token)
        sender = session or without_key
        if sender is None:
            raise KeyRequired(has_keys=not self._keyring.is_empty)
        return sender

    def is_valid(self, sender: Principal) -> bool:
        """Return whether a sender of before may still go on: its key was not revoked."""
        if sender.name is None:
            return self._keyring.is_empty or self._allow_anonymous
        return any(key.name == sender.name for key in self._keyring.all())

    def needs_key(self) -> bool:
        """Return whether a request from this machine needs a key."""
        return self._without_key("127.0.0.1", False) is None

    def _of_session(self, token: str) -> Principal | None:
        """Return the sender of a session whose key is still the same."""
        identity = self._sessions.key_of(token)
        keys = self._keyring.all()
        matches = [key.principal for key in keys if (key.name, key.sha256) == identity]
        return matches[0] if matches else None

    def _without_key(self, address: str, is_forwarded: bool) -> Principal | None:
        """Return who sends a request without a key, None if it is refused."""
        is_own = self._is_local and not is_forwarded and is_loopback_address(address)
        if self._keyring.is_empty and is_own:
            return LOCAL
        return ANONYMOUS if self._allow_anonymous else None


def secret_of(authorization: str | None) -> str | None:
    """Return the key of an Authorization header; None without one.

    `Bearer KEY` (RFC 6750) and `Basic base64(NAME:KEY)` (RFC 7617) are read. The name is ignored.
    Many clients send an empty header, or one without a key, when no key is set: it counts as none.
    A malformed header is an empty text, which no key equals.
    """
    if not authorization:
        return None
    scheme, _, value = authorization.partition(" ")
    value = value.strip()
    if scheme.lower() in ("bearer", "basic") and not value:
        return None
    if scheme.lower() == "bearer":
        return value
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2] or None
    except (binascii.Error, UnicodeDecodeError):
        return ""
