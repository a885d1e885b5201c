"""A JSON array of result records, read one record at a time. Codec only: bytes in, objects out.

The gateway writes each record on a line of its own; an array on one single line is read as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from sde_client.errors import UnexpectedReply

MAX_LINE_BYTES = 256 << 20
"""A 2048 px picture is about 17 MB of base64 at worst; this bounds what a stray server may cost."""


class CutOff(Exception):
    """The bytes ended before the array did."""


def records(chunks: Iterable[bytes]) -> Iterator[object]:
    """Yield the array's elements; holds one line at a time.

    Raises:
        UnexpectedReply: not an array of lines that are JSON each.
        CutOff: the closing bracket never came.
    """
    opened = closed = False
    for number, raw in enumerate(_lines(chunks), start=1):
        line = raw.strip()
        if not line:
            continue
        if closed:
            raise _not_ours(number)
        if not opened:
            if not line.startswith(b"["):
                raise _not_ours(number)
            opened, line = True, line[1:]
        # A record ends in a brace, so a bracket at a line's end can only be the array's.
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
        raise (_not_ours(number) if whole else CutOff()) from None
    return elements


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines with their line break, so that a cut-off one can be told by its lack."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        if b"\n" in chunk:
            *whole, rest = bytes(held).split(b"\n")
            yield from (line + b"\n" for line in whole)
            held = bytearray(rest)
        if len(held) > MAX_LINE_BYTES:
            raise UnexpectedReply(f"the server sent a line of more than {MAX_LINE_BYTES} bytes")
    yield bytes(held)


def _not_ours(number: int) -> UnexpectedReply:
    return UnexpectedReply(
        f"line {number} of the results is not a JSON record: another server, another version, "
        "or a proxy that rewrites replies"
    )
