"""Reads and writes the file of keys, `SDE_DATA_DIR/keys.json`, which holds digests alone.

    {"version": 1, "keys": [{"name", "sha256", "scopes", "created_time"}]}

Writers hold a lock beside it and replace the whole file. A reader needs no lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.access.keys import Key
from gateway.errors import TooManyKeys
from gpu_worker.store import durable
from gpu_worker.store.durable import StoreTooNew

VERSION = 1
MAX_KEYS = 1000
"""A ring of a few people never comes near it. Each request is compared with every key."""

MAX_FILE_BYTES = 1 << 20


class KeyFileInvalid(ValueError):
    """The file of keys cannot be used; the text gives the reason."""


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    keys: Annotated[list[Key], Field(max_length=MAX_KEYS)]


def read(path: Path) -> list[Key] | None:
    """Return the keys of the file, None if there is no file.

    Raises:
        KeyFileInvalid: it is not a file of keys, or others may read or write it.
        StoreTooNew: a newer version wrote it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyFileInvalid(f"the file of keys cannot be opened: {error.strerror}") from None
    with open(descriptor, "rb") as file:
        _check_mode(os.fstat(file.fileno()))
        content = file.read(MAX_FILE_BYTES + 1)
    try:
        keys = _Content.model_validate_json(content).keys
    except ValidationError as error:
        _refuse_newer(path, content)
        place = ".".join(map(str, error.errors()[0]["loc"])) or "the text"
        reason = f"{place} is not what version {VERSION} writes"
        raise KeyFileInvalid(f"the file of keys is invalid: {reason}") from None
    if len({key.name for key in keys}) < len(keys):
        raise KeyFileInvalid("the file of keys is invalid: two keys have the same name")
    return keys


def _refuse_newer(path: Path, content: bytes) -> None:
    """Raises StoreTooNew if the text is an object with the version of a newer program."""
    try:
        version = json.loads(content)["version"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return
    if type(version) is int and version > VERSION:
        reason = f"has the version {version}, and this version reads {VERSION}"
        raise StoreTooNew(path, reason)


def _check_mode(status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode) or mode & 0o077 or status.st_uid != os.geteuid():
        raise KeyFileInvalid(
            f"the file of keys must be a file of this user with mode 0600, not {mode:04o}: "
            "run chmod 600 on it"
        )


def change(path: Path, edit: Callable[[list[Key]], list[Key]]) -> None:
    """Replace the keys of the file by `edit` of them, while no other process changes it.

    Raises:
        KeyFileInvalid: the file is not one of keys.
        TooManyKeys: there would be more than MAX_KEYS.
        OSError: the file cannot be written, or a newer version wrote it. Nothing has changed.
    """
    with _locked(path):
        keys = edit(read(path) or [])
        if len(keys) > MAX_KEYS:
            raise TooManyKeys(MAX_KEYS)
        durable.replace(path, _Content(keys=keys).model_dump_json(indent=1).encode() + b"\n")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path.with_suffix(".lock"), flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
