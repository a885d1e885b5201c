"""Keeps the file of tombstones: deletions that left the gateway's journal, a line for each job.

Its one writer is the gateway. The lines are the journal's own (docs/results-format.md).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from gateway.store import journal_event
from gpu_worker.store import scan
from gpu_worker.store.durable import AppendFile, DamagedLine

log = logging.getLogger(__name__)


def append(path: Path, deleted: Mapping[str, str | None]) -> None:
    """Append deletions, uuid -> submission; they are on disk when this returns.

    Raises:
        OSError: the disk refuses them; the next call cuts what was written in part.
    """
    file = AppendFile(path)
    cut = file.open()
    if cut:
        log.warning("%s: a torn line of %d bytes was cut", path.name, cut)
    try:
        file.append(b"".join(encode(uuid, submission) for uuid, submission in deleted.items()))
    finally:
        file.close()


def encode(uuid: str, submission: str | None) -> bytes:
    """Return one line with its newline."""
    event = {"event": "deleted", "uuid": uuid, "submission": submission}
    return journal_event.encode(event)


def read(path: Path, start: int) -> Iterator[tuple[int, str, str | None]]:
    """Yield the end, uuid and submission of each whole line from an offset on.

    A damaged line is skipped and logged. Raises OSError.
    """
    with open(path, "rb", buffering=scan.CHUNK_BYTES) as file:
        for offset, length, text in scan.whole_lines(file, start):
            try:
                uuid, submission = _decode(text or b"")
            except DamagedLine as error:
                log.warning("%s: the line at %d is skipped: it %s", path.name, offset, error)
            else:
                yield offset + length, uuid, submission


def _decode(text: bytes) -> tuple[str, str | None]:
    match journal_event.decode(text):
        case {"event": "deleted", "uuid": str(uuid), "submission": str() | None as key}:
            return uuid, key
    raise DamagedLine(f"is not a tombstone of version {journal_event.VERSION}")
