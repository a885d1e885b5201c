"""Encodes and parses a result as a line of the log (docs/results-format.md). It does no I/O.

{"uuid":"<36>","prompt":...,"created_time":...,"errors":[...],"data":"<base64>","format":1,
 "state":"succeeded","sequence":12,"image_index":0,"num_images":1,...,"crc32":"89abcdef"}\\n
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

from gpu_worker.store import durable
from gpu_worker.store.durable import DamagedLine, NewerLine

FORMAT = 1
"""The record's version. Readers ignore unknown keys; a change of meaning gets another number."""

V1_KEYS = ("uuid", "prompt", "created_time", "errors")
"""They come first, in this order, and `data` follows."""

INDEXED_KEYS = ("state", "sequence", "image_index", "num_images", "submission")
"""They follow `data` and `format`, so that an index needs no JSON parser."""

_PREFIX = b'{"uuid":"'
_UUID_CHARS = 36
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DATA = b',"data":'
# Inside a JSON string a quote is escaped: an unescaped `,"data":` can only be the key.
_METADATA = re.compile(
    rb',"format":(\d{1,9}),"state":"(succeeded|failed|canceled)","sequence":(\d{1,18})'
    rb'(?:,"image_index":(\d{1,4}),"num_images":(\d{1,4}))?'
    rb'(?:,"submission":(?:null|"([0-9a-f:]{65})"))?[,}]'
)


_VERSION = re.compile(rb',"format":(\d{1,9})[,}]')


@dataclass(frozen=True)
class ParsedLine:
    """The values of a line that an index needs. Offsets and lengths are in bytes from its start.

    `data_length` is that of the base64 text without quotes, and 0 if `data` is null.
    """

    uuid: str
    state: str
    sequence: int
    image_index: int
    num_images: int
    data_at: int
    data_length: int
    submission: str | None = None

    @property
    def is_last(self) -> bool:
        """Return whether this line ends its outcome."""
        return self.image_index == self.num_images - 1

    def follows(self, other: ParsedLine) -> bool:
        """Return whether this line comes after the other one in the same outcome."""
        return self.uuid == other.uuid and self.image_index > other.image_index


def encode(record: dict[str, Any]) -> bytes:
    """Return a record as one line. It needs the five keys of version 1, `state` and `sequence`.

    Raises:
        KeyError: a key is missing.
    """
    rest = dict(record)
    head = orjson.dumps({key: rest.pop(key) for key in V1_KEYS})[:-1]
    data = orjson.dumps(rest.pop("data"))
    indexed = {"format": FORMAT} | {key: rest.pop(key) for key in INDEXED_KEYS if key in rest}
    tail = orjson.dumps({**indexed, **rest})[1:-1]
    return durable.with_checksum(b"".join((head, _DATA, data, b",", tail)))


def begins(line: bytes, uuid: str) -> bool:
    """Return whether a line is of this result, from its first bytes."""
    return line.startswith(_PREFIX + uuid.encode() + b'"')


def verify(line: bytes, uuid: str) -> None:
    """Raises DamagedLine if the line is not the unchanged record of this result."""
    durable.verify_checksum(line)
    if not begins(line, uuid):
        raise DamagedLine(f"is another record than {uuid}")


def parse(line: bytes) -> ParsedLine:
    """Find the values of a line without a JSON parser, and verify its checksum.

    Raises:
        NewerLine: a newer version wrote the record.
        DamagedLine: the line is not a whole record.
    """
    durable.verify_checksum(line)
    end = len(_PREFIX) + _UUID_CHARS
    if line[: len(_PREFIX)] != _PREFIX or line[end : end + 2] != b'",':
        raise DamagedLine("does not begin with a uuid")
    uuid = line[len(_PREFIX) : end].decode("ascii", "replace")
    if _UUID.fullmatch(uuid) is None:
        raise DamagedLine("does not begin with a uuid")
    data_at = line.find(_DATA) + len(_DATA)
    if data_at < len(_DATA):
        raise DamagedLine("has no data")
    quoted = line[data_at : data_at + 1] == b'"'
    after = line.find(b'"', data_at + 1) + 1 if quoted else data_at + len(b"null")
    match = _match_metadata(line, after)
    return ParsedLine(
        uuid,
        match[2].decode(),
        int(match[3]),
        *_image_number(match),
        data_at + 1 if quoted else data_at,
        after - data_at - 2 if quoted else 0,
        match[6].decode() if match[6] else None,
    )


def without_data(line: bytes, parsed: ParsedLine) -> bytes:
    """Return the line with `data` null."""
    if not parsed.data_length:
        return line
    behind = parsed.data_at + parsed.data_length + len('"')
    return line[: parsed.data_at - len('"')] + b"null" + line[behind:]


def image_index(line: bytes, behind_data: int) -> int:
    """Return the index of the line's image, from 0. Raises DamagedLine."""
    return _image_number(_match_metadata(line, behind_data))[0]


def _match_metadata(line: bytes, behind_data: int) -> re.Match[bytes]:
    version = _VERSION.match(line, behind_data)
    if version is not None and int(version[1]) > FORMAT:
        raise NewerLine(
            f"has the record format {int(version[1])}, and this version reads format {FORMAT}"
        )
    match = _METADATA.match(line, behind_data)
    if match is None or int(match[1]) != FORMAT:
        raise DamagedLine(f"is not of format {FORMAT}")
    return match


def _image_number(match: re.Match[bytes]) -> tuple[int, int]:
    """Return image_index and num_images. A line of an older version has neither."""
    number, count = int(match[4] or 0), int(match[5] or 1)
    if number >= count:
        raise DamagedLine(f"has the image index {number}, but only {count} images")
    return number, count
