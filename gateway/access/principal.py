"""Defines who sends a request, and what a principal may do."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from gateway.errors import NotOwner, ScopeMissing


class Scope(enum.StrEnum):
    """What a key allows.

    `generate` submits jobs, reads everything, and cancels or deletes the key's own jobs. `admin`
    also loads and unloads models, cancels or deletes every job, and manages keys.
    """

    GENERATE = "generate"
    ADMIN = "admin"


@dataclass(frozen=True)
class Principal:
    """The sender of a request. `name` is its key's name, None without a key."""

    name: str | None = None
    scopes: frozenset[Scope] = field(default_factory=lambda: frozenset(Scope))

    @property
    def is_admin(self) -> bool:
        """Return whether it may change what others own."""
        return Scope.ADMIN in self.scopes

    def check_scope(self, scope: Scope) -> None:
        """Raises ScopeMissing if the principal lacks the scope."""
        if scope not in self.scopes:
            raise ScopeMissing(self.name, scope)

    def check_owner(self, owner: str | None) -> None:
        """Raises NotOwner if a job of this owner is another's, unless the principal is admin."""
        if not self.is_admin and owner != self.name:
            raise NotOwner(self.name, owner)


LOCAL = Principal()
"""The sender on this machine while the service needs no key. It may do everything."""

ANONYMOUS = Principal(scopes=frozenset({Scope.GENERATE}))
"""A sender without a key where SDE_ALLOW_ANONYMOUS admits it beside keys."""
