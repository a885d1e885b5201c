"""Defines a key: its name, its digest and its scopes. The secret itself is never stored."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_serializer,
)

from gateway.access.principal import Principal, Scope

PREFIX = "sde_"
"""Every generated secret begins with it, so that scanners for leaked secrets recognise one."""

SECRET_BYTES = 32
"""Random bytes of a secret: 256 bits cannot be guessed, so one round of SHA-256 is enough."""

MIN_SECRET_CHARS = 20
"""A shorter secret of the environment is refused, because it could be guessed over the network."""

MAX_SECRET_CHARS = 512

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_SECRET = re.compile(r"[!-9;-~]+")  # printable ASCII without space and colon (RFC 7617)

Name = Annotated[str, StringConstraints(pattern=NAME)]


def _at_least_one(scopes: frozenset[Scope]) -> frozenset[Scope]:
    if not scopes:
        raise ValueError("has no scope")
    return scopes


class Key(BaseModel):
    """A key as it is stored: `sha256` is the digest of its secret in hexadecimal digits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] = Field(repr=False)
    scopes: Annotated[frozenset[Scope], AfterValidator(_at_least_one)]
    created_time: str

    @field_serializer("scopes")
    def _in_order(self, scopes: frozenset[Scope]) -> list[str]:
        return sorted(scopes)

    def public(self) -> dict[str, object]:
        """Return what may be shown of it."""
        return self.model_dump(exclude={"sha256"})

    @property
    def principal(self) -> Principal:
        """Return who sends a request with this key."""
        return Principal(self.name, self.scopes)


def new_secret() -> str:
    """Return a random secret in base64url (RFC 4648, section 5)."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def digest(secret: str) -> str:
    """Return the SHA-256 of a secret in hexadecimal digits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def make_key(name: str, secret: str, scopes: Iterable[Scope]) -> Key:
    """Return the key of a secret.

    Raises:
        pydantic.ValidationError: the name or the scopes are invalid.
    """
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Key(name=name, sha256=digest(secret), scopes=frozenset(scopes), created_time=created)


def is_secret(text: str) -> bool:
    """Return whether a text can be a secret that an HTTP client is able to send."""
    return MIN_SECRET_CHARS <= len(text) <= MAX_SECRET_CHARS and bool(_SECRET.fullmatch(text))
