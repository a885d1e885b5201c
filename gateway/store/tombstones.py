"""The file of deletions: what leaves the gateway's journal for good, a line a job. A leaf.

One writer, the gateway. Its lines are the journal's own; docs/results-format.md draws them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson

from gpu_worker.store import durable, scan
from gpu_worker.store.durable import AppendFile, DamagedLine

log = logging.getLogger(__name__)

VERSION = 1


def append(path: Path, deleted: Mapping[str, str | None]) -> None:
    """Have the deletions, uuid -> submission, on disk behind those that are there.

    Raises:
        OSError: they are not there; the file is as it was, or will be before the next.
    """
    file = AppendFile(path)
    cut = file.open()
    if cut:
        log.warning("%s: cut a torn line of %d bytes", path.name, cut)
    try:
        file.append(b"".join(encode(uuid, submission) for uuid, submission in deleted.items()))
    finally:
        file.close()


def encode(uuid: str, submission: str | None) -> bytes:
    """One line with its newline."""
    event = {"v": VERSION, "event": "deleted", "uuid": uuid, "submission": submission}
    return durable.with_checksum(orjson.dumps(event)[:-1])


def read(path: Path, start: int) -> Iterator[tuple[int, str, str | None]]:
    """Of each whole line from an offset on: where it ends, uuid and submission. What is damaged is
    skipped and reported. Raises OSError."""
    with open(path, "rb", buffering=scan.CHUNK_BYTES) as file:
        for offset, length, text in scan.whole_lines(file, start):
            try:
                uuid, submission = _decode(text or b"")
            except DamagedLine as error:
                log.warning("%s: skipped the line at %d: it %s", path.name, offset, error)
            else:
                yield offset + length, uuid, submission


def _decode(text: bytes) -> tuple[str, str | None]:
    durable.verify_checksum(text)
    match orjson.loads(text):
        case {"v": 1, "event": "deleted", "uuid": str(uuid), "submission": str() | None as given}:
            return uuid, given
    raise DamagedLine(f"is no deletion of version {VERSION}")
