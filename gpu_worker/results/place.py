"""Reads one record, or a part of it, from its place in a segment. A leaf."""

from __future__ import annotations

import os
from pathlib import Path

from gpu_worker.durable import DamagedLine
from gpu_worker.results import line
from gpu_worker.results.catalog import Entry
from gpu_worker.results.line import Drawn

_NULL = b"null"


def entry(segment: str, offset: int, length: int, drawn: Drawn) -> Entry:
    """The index's entry of a line that was read there."""
    return Entry(
        drawn.uuid,
        drawn.sequence,
        drawn.state,
        segment,
        offset,
        length,
        drawn.data_at,
        drawn.data_length,
    )


def whole(path: Path, at: Entry) -> bytes:
    """The record without its newline. Raises DamagedLine, OSError."""
    (text,) = _read(path, [(at.offset, at.length)])
    if line.draw(text).uuid != at.uuid:
        raise DamagedLine(f"{path.name} at {at.offset} holds another record than {at.uuid}")
    return text[:-1]


def without_data(path: Path, at: Entry) -> bytes:
    """The record with `data` null; its picture is not read. Raises DamagedLine, OSError."""
    quotes = 1 if at.data_length else 0
    behind = at.data_at + (at.data_length + quotes if quotes else len(_NULL))
    head, tail = _read(
        path,
        [(at.offset, at.data_at - quotes), (at.offset + behind, at.length - behind)],
    )
    if at.uuid.encode() not in head[:64] or not tail.endswith(b"}\n"):
        raise DamagedLine(f"{path.name} at {at.offset} holds another record than {at.uuid}")
    return head + _NULL + tail[:-1]


def data(path: Path, at: Entry) -> bytes:
    """The base64 text of the picture, empty when there is none. Raises DamagedLine, OSError."""
    text = whole(path, at)
    return text[at.data_at : at.data_at + at.data_length]


def _read(path: Path, parts: list[tuple[int, int]]) -> list[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return [os.pread(descriptor, length, offset) for offset, length in parts]
    finally:
        os.close(descriptor)
