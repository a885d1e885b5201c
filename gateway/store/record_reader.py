"""Reads one record, or a part of it, from its place in a segment. A leaf."""

from __future__ import annotations

import orjson

from gateway.store.index_db import Entry
from gateway.store.open_segments import OpenSegments
from gpu_worker.store import record_line
from gpu_worker.store.durable import DamagedLine
from gpu_worker.store.record_line import Drawn

_NULL = b"null"


def entry(segment: str, offset: int, length: int, drawn: Drawn) -> Entry:
    """The index's entry of a line that was read there."""
    return Entry(
        drawn.uuid,
        drawn.image_index,
        drawn.num_images,
        drawn.sequence,
        drawn.state,
        segment,
        offset,
        length,
        drawn.data_at,
        drawn.data_length,
        drawn.submission,
    )


def whole(segments: OpenSegments, at: Entry) -> bytes:
    """The record without its newline, verified. Raises DamagedLine, OSError."""
    text = line_at(segments, at.uuid, at.segment, at.offset, at.length)
    _check_number(text, _behind_data(at), at)
    return text


def line_at(segments: OpenSegments, uuid: str, segment: str, offset: int, length: int) -> bytes:
    """As whole(), of a record whose parts are not known. Raises DamagedLine, OSError."""
    text = segments.read_one(segment, offset, length)
    record_line.verify(text, uuid)
    return text[:-1]


def without_data(segments: OpenSegments, at: Entry) -> bytes:
    """The record with `data` null; its picture is not read. Raises DamagedLine, OSError."""
    quotes = 1 if at.data_length else 0
    behind = _behind_data(at)
    head, tail = segments.read(
        at.segment,
        (at.offset, at.data_at - quotes),
        (at.offset + behind, at.length - behind),
    )
    if not record_line.begins(head, at.uuid) or not tail.endswith(b"}\n"):
        raise DamagedLine(f"is another record than {at.uuid}")
    _check_number(tail, 0, at)
    text = head + _NULL + tail[:-1]
    try:
        # The checksum is of the whole line; that it still is JSON can be told without the picture.
        orjson.loads(text)
    except orjson.JSONDecodeError:
        raise DamagedLine("is not JSON") from None
    return text


def data(segments: OpenSegments, at: Entry) -> bytes:
    """The base64 text of the picture, empty when there is none. Raises DamagedLine, OSError."""
    text = whole(segments, at)
    return text[at.data_at : at.data_at + at.data_length]


def _behind_data(at: Entry) -> int:
    return at.data_at + (at.data_length + len('"') if at.data_length else len(_NULL))


def _check_number(text: bytes, behind_data: int, at: Entry) -> None:
    """An index that is older than its segment may know another picture of the job at this place."""
    if record_line.image_index(text, behind_data) != at.image_index:
        raise DamagedLine(f"is another picture of {at.uuid}")
