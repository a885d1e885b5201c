"""Holds the keys that are valid now: those of the environment and those of the file."""

from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import Iterable
from pathlib import Path

from gateway.access import key_file, keys
from gateway.access.key_file import KeyFileInvalid
from gateway.access.keys import Key
from gateway.access.principal import Scope
from gateway.errors import KeyNameTaken, UnknownKey

log = logging.getLogger(__name__)

_Signature = tuple[int, int, int] | None


def parse_environment(text: str) -> list[Key]:
    """Return the keys of SDE_KEYS: `NAME:SECRET` or `NAME:SECRET:generate`, with commas between.

    Raises:
        ValueError: an entry is malformed. The text names it by its position, and quotes nothing of
            it, because any part may be the secret.
    """
    parsed: list[Key] = []
    for number, entry in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        name, _, rest = entry.partition(":")
        secret, _, scope = rest.partition(":")
        if not keys.is_secret(secret):
            raise ValueError(
                f"entry {number} is not NAME:SECRET with a secret of {keys.MIN_SECRET_CHARS} to "
                f"{keys.MAX_SECRET_CHARS} printable ASCII characters"
            )
        if scope not in ("", *Scope):
            raise ValueError(
                f"entry {number} has a third part that is neither generate nor admin; a secret has "
                "no colon and no comma"
            )
        if name.startswith(keys.PREFIX):
            raise ValueError(
                f"entry {number} begins with {keys.PREFIX}, as a secret does; the name stands first"
            )
        scopes = [Scope.GENERATE] if scope == Scope.GENERATE else list(Scope)
        try:
            parsed.append(keys.make_key(name, secret, scopes))
        except ValueError:
            raise ValueError(
                f"entry {number} begins with no name of 1 to 64 letters, digits and . _ -"
            ) from None
    if len({key.name for key in parsed}) < len(parsed):
        raise ValueError("two entries have the same name")
    return parsed


class Keyring:
    """The valid keys. Thread-safe. It sees each change of the file at the next request.

    Args:
        path: the file of keys; it may not exist.
        environment: the keys of SDE_KEYS, which no command changes.

    Raises:
        KeyFileInvalid: the file exists and cannot be used.
    """

    def __init__(self, path: Path, environment: Iterable[Key] = ()) -> None:
        self.path = path
        self._environment = list(environment)
        self._lock = threading.Lock()
        self._signature = self._stat()
        self._stored = key_file.read(path)

    @property
    def is_empty(self) -> bool:
        """Return whether no key was ever made. A file without keys is a ring that lost its last."""
        return self._keys_of_file() is None and not self._environment

    def all(self) -> list[Key]:
        """Return the valid keys, those of the environment first."""
        return [*self._environment, *(self._keys_of_file() or ())]

    def match(self, secret: str) -> Key | None:
        """Return the key of a secret, None if there is none.

        The time does not depend on how much of a digest matches (hmac.compare_digest).
        """
        presented = keys.digest(secret)
        matches = [key for key in self.all() if hmac.compare_digest(key.sha256, presented)]
        return matches[0] if matches else None

    def add(self, name: str, scopes: Iterable[Scope]) -> str:
        """Store a new key and return its secret, which nobody can read again.

        Raises:
            KeyNameTaken: a key has this name.
            pydantic.ValidationError: the name or the scopes are invalid.
            KeyFileInvalid, OSError: the file cannot be changed.
        """
        secret = keys.new_secret()
        key = keys.make_key(name, secret, scopes)

        def edit(stored: list[Key]) -> list[Key]:
            if any(each.name == name for each in (*self._environment, *stored)):
                raise KeyNameTaken(name)
            return [*stored, key]

        key_file.change(self.path, edit)
        return secret

    def revoke(self, name: str) -> None:
        """Remove a key of the file. It is invalid from the next request on.

        Raises:
            UnknownKey: the file has no key of this name.
            KeyFileInvalid, OSError: the file cannot be changed.
        """

        def edit(stored: list[Key]) -> list[Key]:
            rest = [key for key in stored if key.name != name]
            if len(rest) == len(stored):
                raise UnknownKey(name, any(key.name == name for key in self._environment))
            return rest

        key_file.change(self.path, edit)

    def _keys_of_file(self) -> list[Key] | None:
        with self._lock:
            signature = self._stat()
            if signature != self._signature:
                self._signature, self._stored = signature, self._read_again()
            return self._stored

    def _read_again(self) -> list[Key] | None:
        """Return the file's keys; none where it is gone or invalid, so that nothing opens."""
        try:
            return key_file.read(self.path) or []
        except (KeyFileInvalid, OSError) as error:
            log.error("no key of the file is valid now: %s", error)
            return []

    def _stat(self) -> _Signature:
        try:
            status = self.path.stat(follow_symlinks=False)
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
