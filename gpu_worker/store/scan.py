"""Reads the lines of a segment one by one, and finds the damaged ones.

It uses constant memory, because a line longer than MAX_LINE_BYTES is damage and is never kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gpu_worker.contract import output_size
from gpu_worker.store import durable, record_line
from gpu_worker.store.durable import DamagedLine, NewerLine
from gpu_worker.store.record_line import ParsedLine

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class ScannedLine:
    """A line. `parsed` is None for a damaged line, and `reason` describes the damage.

    `is_newer` says that it is not damaged, but that a newer version wrote it. `metadata` is the
    line of a record with `data` null.
    """

    offset: int
    length: int
    parsed: ParsedLine | None
    reason: str = ""
    is_newer: bool = False
    metadata: bytes = b""


def lines(path: Path, start: int = 0, end: int | None = None) -> Iterator[ScannedLine]:
    """Yield every whole line between two offsets, but not a torn last one.

    Raises:
        OSError: the file cannot be read, or is a link.
    """
    with durable.open_plain(path, CHUNK_BYTES) as file:
        for offset, length, text in whole_lines(file, start, end):
            if text is None:
                yield ScannedLine(
                    offset, length, None, f"is longer than {output_size.MAX_LINE_BYTES} bytes"
                )
            else:
                yield _scan_line(text, offset)


def whole_lines(
    file: BinaryIO, start: int = 0, end: int | None = None
) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield offset, length and text of each whole line between two offsets.

    A line longer than MAX_LINE_BYTES has no text. Raises OSError.
    """
    offset = start
    file.seek(start)
    while end is None or offset < end:
        text: bytes | None = file.readline(output_size.MAX_LINE_BYTES)
        rest, length = text or b"", len(text or b"")
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(CHUNK_BYTES)
            length, text = length + len(rest), None
        if not rest:
            return
        yield offset, length, text
        offset += length


def _scan_line(text: bytes, offset: int) -> ScannedLine:
    try:
        parsed = record_line.parse(text)
        return ScannedLine(
            offset, len(text), parsed, metadata=record_line.without_data(text, parsed)
        )
    except DamagedLine as error:
        is_newer = isinstance(error, NewerLine)
        return ScannedLine(offset, len(text), None, str(error), is_newer)
