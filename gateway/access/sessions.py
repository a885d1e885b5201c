"""Holds the sessions of browsers: a random token stands for a key, so that no cookie is a key.

`SDE_DATA_DIR/sessions.json` has their digests. The gateway is its one writer, and a session
outlives a restart.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.access import keys
from gpu_worker.store import durable

log = logging.getLogger(__name__)

LIFE_S = 90 * 86400
"""A browser logs in again after so long."""

MAX_SESSIONS = 1000
"""Above it the oldest session ends, so that logins cannot fill the disk."""

TOKEN_BYTES = 32


class _Session(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    key_name: str
    key_sha256: str
    began: float


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    sessions: Annotated[list[_Session], Field(max_length=MAX_SESSIONS)]


class Sessions:
    """The valid sessions. Thread-safe. A damaged file means that browsers log in again.

    Args:
        clock: returns the time in seconds since the epoch.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions = self._read()

    def begin(self, key: keys.Key) -> str:
        """Begin a session of a key, and return its token."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        session = _Session(
            sha256=keys.digest(token),
            key_name=key.name,
            key_sha256=key.sha256,
            began=self._clock(),
        )
        with self._lock:
            self._sessions = [*self._live(), session][-MAX_SESSIONS:]
            self._write()
        return token

    def end(self, token: str) -> None:
        """End a session; an unknown one is ended already."""
        presented = keys.digest(token)
        with self._lock:
            self._sessions = [each for each in self._live() if each.sha256 != presented]
            self._write()

    def key_of(self, token: str) -> tuple[str, str] | None:
        """Return the name and the digest of a session's key, None without a session."""
        presented = keys.digest(token)
        with self._lock:
            live = self._live()
        matches = [each for each in live if hmac.compare_digest(each.sha256, presented)]
        return (matches[0].key_name, matches[0].key_sha256) if matches else None

    def _live(self) -> list[_Session]:
        now = self._clock()
        return [each for each in self._sessions if now - LIFE_S < each.began <= now + LIFE_S]

    def _read(self) -> list[_Session]:
        try:
            return _Content.model_validate_json(durable.read_plain(self._path)).sessions
        except FileNotFoundError:
            return []
        except (OSError, ValidationError):
            log.warning("the file of sessions cannot be read, so browsers must log in again")
            return []

    def _write(self) -> None:
        content = _Content(sessions=self._sessions).model_dump_json().encode()
        try:
            durable.replace(self._path, content)
        except OSError as error:
            log.warning("the sessions end with this process: %s", error.strerror)
