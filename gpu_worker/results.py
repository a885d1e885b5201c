"""The result log: append, repair, read. One JSON object a line: docs/results-format.md. A leaf.

One writer a file (the worker that owns it); any number of readers, none past `committed`.

    {"uuid":"<36 chars>","prompt":...,"created_time":...,"errors":[...],"data":"<base64>",...}\n
    ^ 0      ^ 9                                                                           ends ^
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

_PREFIX = b'{"uuid":"'
_UUID_CHARS = 36
_CHUNK_BYTES = 1 << 20

log = logging.getLogger(__name__)


class DamagedLine(ValueError):
    """A line that is not a whole record; it is skipped and counted."""


def encode(record: dict[str, Any]) -> bytes:
    """One line with its newline. The uuid comes first, so that an index needs no JSON parser."""
    if next(iter(record)) != "uuid":
        raise ValueError("a result record begins with its uuid")
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def uuid_of(line: bytes) -> str:
    """The uuid of an encoded line, from its first 46 bytes.

    Raises:
        DamagedLine: the line does not begin and end as a record does.
    """
    end = len(_PREFIX) + _UUID_CHARS
    if line[: len(_PREFIX)] != _PREFIX or line[end : end + 1] != b'"':
        raise DamagedLine("does not begin with a uuid")
    if not line.endswith(b"}\n"):
        raise DamagedLine("does not end as a record")
    return line[len(_PREFIX) : end].decode("ascii", "replace")


class ResultLog:
    """The writer's side of one log file. Not thread-safe: one thread appends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.committed = 0
        self._uuids: set[str] = set()
        self._descriptor = -1

    def open(self) -> None:
        """Open for append; a torn last line (a crash in mid-write) is cut and reported.

        Raises:
            OSError: the file cannot be opened, read or cut.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self.path, flags, 0o600)
        entries, whole = scan(self.path, 0)
        size = os.fstat(self._descriptor).st_size
        if whole < size:
            log.warning("%s: cut a torn line of %d bytes at %d", self.path, size - whole, whole)
            os.ftruncate(self._descriptor, whole)
        os.fdatasync(self._descriptor)
        self._sync_directory()
        self.committed = whole
        self._uuids = {entry.uuid for entry in entries}

    def __contains__(self, uuid: str) -> bool:
        return uuid in self._uuids

    def append(self, record: dict[str, Any]) -> None:
        """Write one record and have it on disk; all or nothing.

        Raises:
            OSError: the line could not be written whole; the file has been cut back to before it.
        """
        line = encode(record)
        try:
            self._write(line)
            os.fdatasync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self.committed)
            raise
        self.committed += len(line)
        self._uuids.add(record["uuid"])

    def close(self) -> None:
        """Close the file; appending afterwards is an error."""
        os.close(self._descriptor)
        self._descriptor = -1

    def _write(self, line: bytes) -> None:
        # A full disk answers with a short write first and with ENOSPC only at the next one.
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def _sync_directory(self) -> None:
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class Entry(NamedTuple):
    """Where a record stands: `length` bytes from `offset`, the newline included."""

    uuid: str
    path: Path
    offset: int
    length: int

    def read(self) -> bytes:
        """The line without its newline: a whole JSON object.

        Raises:
            DamagedLine: what stands there is not this record.
            OSError: the file cannot be read.
        """
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            line = file.read(self.length)
        if uuid_of(line) != self.uuid:
            raise DamagedLine(f"{self.path} at {self.offset} holds another record than {self.uuid}")
        return line[:-1]


def scan(path: Path, start: int, end: int | None = None) -> tuple[list[Entry], int]:
    """Find the records between two offsets; a damaged line is skipped and reported.

    Returns:
        The entries in file order, and the offset behind the last whole line.
    """
    entries: list[Entry] = []
    offset = start
    with open(path, "rb", buffering=_CHUNK_BYTES) as file:
        file.seek(start)
        while end is None or offset < end:
            line = file.readline()
            if not line.endswith(b"\n"):
                break
            try:
                entries.append(Entry(uuid_of(line), path, offset, len(line)))
            except DamagedLine as error:
                log.warning("%s: skipped the line at %d: %s", path, offset, error)
            offset += len(line)
    return entries, offset


class ResultIndex:
    """The reader's side: all logs of a directory, by uuid and in order. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._by_uuid: dict[str, Entry] = {}
        self._read_to: dict[Path, int] = {}

    def open(self) -> None:
        """Index every log that is there, up to its last whole line."""
        for path in sorted(self._directory.glob("*.jsonl")):
            self.refresh(path.name, None)

    def refresh(self, name: str, committed: int | None) -> list[str]:
        """Index one log up to `committed` bytes (None: its last whole line).

        Returns:
            The uuids that are new. A log that is not there yet has none.
        """
        path = self._directory / name
        with self._lock:
            start = self._read_to.get(path, 0)
            if (committed is not None and committed <= start) or not path.exists():
                return []
            entries, self._read_to[path] = scan(path, start, committed)
            fresh = [entry for entry in entries if entry.uuid not in self._by_uuid]
            self._entries.extend(fresh)
            self._by_uuid.update((entry.uuid, entry) for entry in fresh)
            return [entry.uuid for entry in fresh]

    def __contains__(self, uuid: str) -> bool:
        return uuid in self._by_uuid

    def entries(self, uuid: str | None = None) -> list[Entry]:
        """All entries in order, or the one with this uuid, or none."""
        with self._lock:
            if uuid is None:
                return list(self._entries)
            return [self._by_uuid[uuid]] if uuid in self._by_uuid else []


def array(entries: list[Entry]) -> Iterator[bytes]:
    """The records as one JSON array, a line an object; nothing is parsed, one is held at a time.

    A record that has become unreadable is left out and reported: the others are served.
    """
    yield b"["
    separator = b""
    for entry in entries:
        try:
            line = entry.read()
        except (OSError, DamagedLine) as error:
            log.warning("left a record out: %s", error)
            continue
        yield separator + line
        separator = b",\n"
    yield b"]"
