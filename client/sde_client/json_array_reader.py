"""Reads a JSON array of result records, one record at a time. It does no I/O.

The gateway writes each record on a line of its own. An array on one line can be read, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from sde_client.errors import UnexpectedReply

MAX_LINE_BYTES = 256 << 20
"""The limit of one line. The server's own limit is 68 MiB (docs/results-format.md)."""


class CutOff(Exception):
    """The bytes ended before the end of the array."""


def records(chunks: Iterable[bytes]) -> Iterator[object]:
    """Yield the array's elements. One line is in memory at a time.

    Raises:
        UnexpectedReply: a line is not JSON, or the bytes are not an array.
        CutOff: the closing bracket is missing.
    """
    opened = closed = False
    for number, raw in enumerate(_lines(chunks), start=1):
        line = raw.strip()
        if not line:
            continue
        if closed:
            raise _unexpected(number)
        if not opened:
            if not line.startswith(b"["):
                raise _unexpected(number)
            opened, line = True, line[1:]
        # A record ends in a brace, so a bracket at the end of a line ends the array.
        if line.endswith(b"]"):
            closed, line = True, line[:-1]
        else:
            line = line.removesuffix(b",")
        yield from _elements(line, number, whole=closed or raw.endswith(b"\n"))
    if not closed:
        raise CutOff


def _elements(line: bytes, number: int, whole: bool) -> list[object]:
    try:
        elements: list[object] = json.loads(b"[%b]" % line)
    except (ValueError, RecursionError):
        raise (_unexpected(number) if whole else CutOff()) from None
    return elements


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines with their line breaks. A line that was cut off has none."""
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        if b"\n" in chunk:
            *whole, rest = bytes(buffer).split(b"\n")
            yield from (line + b"\n" for line in whole)
            buffer = bytearray(rest)
        if len(buffer) > MAX_LINE_BYTES:
            raise UnexpectedReply(f"the server sent a line of more than {MAX_LINE_BYTES} bytes")
    yield bytes(buffer)


def _unexpected(number: int) -> UnexpectedReply:
    return UnexpectedReply(
        f"line {number} of the results is not a JSON record; the reply is from another server, "
        "from another version, or a proxy has changed it"
    )
