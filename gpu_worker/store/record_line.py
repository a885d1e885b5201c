"""One result as a line of the log, drawn in docs/results-format.md. It does no I/O.

{"uuid":"<36>","prompt":...,"created_time":...,"errors":[...],"data":"<base64>","format":1,
 "state":"succeeded","sequence":12,"image_index":0,"num_images":1,...,"crc32":"89abcdef"}\\n
"""

from __future__ import annotations

import re
import uuid as uuids
from dataclasses import dataclass
from typing import Any

import orjson

from gpu_worker.store import durable
from gpu_worker.store.durable import DamagedLine

FORMAT = 1
"""The record's version. Readers bear further keys; a change of meaning needs another number."""

V1_KEYS = ("uuid", "prompt", "created_time", "errors")
"""They come first, in this order, and `data` follows."""

INDEXED_KEYS = ("state", "sequence", "image_index", "num_images", "submission")
"""They follow `data` and `format`, so that an index needs no JSON parser."""

_PREFIX = b'{"uuid":"'
_UUID_CHARS = 36
_DATA = b',"data":'
# Inside a JSON string a quote is escaped: an unescaped `,"data":` can only be the key.
_METADATA = re.compile(
    rb',"format":(\d+),"state":"(succeeded|failed|canceled)","sequence":(\d+)'
    rb'(?:,"image_index":(\d{1,4}),"num_images":(\d{1,4}))?'
    rb'(?:,"submission":(?:null|"([0-9a-f:]{65})"))?[,}]'
)


@dataclass(frozen=True)
class ParsedLine:
    """What an index needs of a line. Offsets and lengths are bytes from the line's begin.

    `data_length` is of the base64 text without its quotes, 0 when `data` is null.
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
        """Whether the outcome that it belongs to ends with it."""
        return self.image_index == self.num_images - 1

    def follows(self, other: ParsedLine) -> bool:
        """Whether it stands behind the other in one outcome; between them may be damage."""
        return self.uuid == other.uuid and self.image_index > other.image_index


def encode(record: dict[str, Any]) -> bytes:
    """One line with its newline. Needs version 1's five keys, `state` and `sequence`.

    Raises:
        KeyError: one of them is missing.
    """
    rest = dict(record)
    head = orjson.dumps({key: rest.pop(key) for key in V1_KEYS})[:-1]
    data = orjson.dumps(rest.pop("data"))
    facts = {"format": FORMAT} | {key: rest.pop(key) for key in INDEXED_KEYS if key in rest}
    tail = orjson.dumps({**facts, **rest})[1:-1]
    return durable.with_checksum(b"".join((head, _DATA, data, b",", tail)))


def begins(line: bytes, uuid: str) -> bool:
    """Whether a line is this result's, by its first bytes."""
    return line.startswith(_PREFIX + uuid.encode() + b'"')


def verify(line: bytes, uuid: str) -> None:
    """Raises DamagedLine when it is not this result's whole record, as it was written."""
    durable.verify_checksum(line)
    if not begins(line, uuid):
        raise DamagedLine(f"is another record than {uuid}")


def parse(line: bytes) -> ParsedLine:
    """Where things stand in a line, found without a JSON parser; its checksum is verified.

    Raises:
        DamagedLine: it is no whole record.
    """
    durable.verify_checksum(line)
    end = len(_PREFIX) + _UUID_CHARS
    if line[: len(_PREFIX)] != _PREFIX or line[end : end + 2] != b'",':
        raise DamagedLine("does not begin with a uuid")
    try:
        uuid = str(uuids.UUID(line[len(_PREFIX) : end].decode("ascii")))
    except ValueError:
        raise DamagedLine("does not begin with a uuid") from None
    data_at = line.find(_DATA) + len(_DATA)
    if data_at < len(_DATA):
        raise DamagedLine("has no data")
    quoted = line[data_at : data_at + 1] == b'"'
    after = line.find(b'"', data_at + 1) + 1 if quoted else data_at + len(b"null")
    facts = _match_metadata(line, after)
    return ParsedLine(
        uuid,
        facts[2].decode(),
        int(facts[3]),
        *_image_number(facts),
        data_at + 1 if quoted else data_at,
        after - data_at - 2 if quoted else 0,
        facts[6].decode() if facts[6] else None,
    )


def image_index(line: bytes, behind_data: int) -> int:
    """The picture's number from 0, read where the facts begin. Raises DamagedLine."""
    return _image_number(_match_metadata(line, behind_data))[0]


def _match_metadata(line: bytes, behind_data: int) -> re.Match[bytes]:
    facts = _METADATA.match(line, behind_data)
    if facts is None or int(facts[1]) != FORMAT:
        raise DamagedLine(f"is not of format {FORMAT}")
    return facts


def _image_number(facts: re.Match[bytes]) -> tuple[int, int]:
    """image_index and num_images; a line of before there were several is the only one."""
    number, count = int(facts[4] or 0), int(facts[5] or 1)
    if number >= count:
        raise DamagedLine(f"says that it is picture {number}, from 0, of {count}")
    return number, count
