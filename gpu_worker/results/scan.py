"""Reads a segment's lines one after another: what is whole, what is damaged. A leaf.

Memory stays flat: a line longer than MAX_LINE_BYTES is damage, and is never held whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpu_worker.durable import DamagedLine
from gpu_worker.results import line
from gpu_worker.results.line import Drawn

MAX_LINE_BYTES = 64 << 20
"""A 2048 px PNG of noise is 17 MB of base64: four times that is no picture of ours."""

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Found:
    """One line: `drawn` is None when it is damaged, and `reason` says how."""

    offset: int
    length: int
    drawn: Drawn | None
    reason: str = ""


def lines(path: Path, start: int = 0, end: int | None = None) -> Iterator[Found]:
    """Every whole line between two offsets; a torn last one is not yielded.

    Raises:
        OSError: the file cannot be read.
    """
    offset = start
    with open(path, "rb", buffering=_CHUNK_BYTES) as file:
        file.seek(start)
        while end is None or offset < end:
            text = file.readline(MAX_LINE_BYTES)
            length = len(text)
            if length == MAX_LINE_BYTES and not text.endswith(b"\n"):
                while text and not text.endswith(b"\n"):
                    text = file.readline(_CHUNK_BYTES)
                    length += len(text)
                if not text:
                    return
                yield Found(offset, length, None, f"is longer than {MAX_LINE_BYTES} bytes")
            elif not text.endswith(b"\n"):
                return
            else:
                yield _found(text, offset)
            offset += length


def _found(text: bytes, offset: int) -> Found:
    try:
        return Found(offset, len(text), line.draw(text))
    except DamagedLine as error:
        return Found(offset, len(text), None, str(error))
