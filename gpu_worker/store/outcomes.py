"""Which lines belong together: the outcome of one job, a line a picture, in their order. A leaf.

An outcome counts as a whole. Written at once, only its tail can be missing after a crash, and each
line says whether more follow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from gpu_worker.store import durable, record_line
from gpu_worker.store.durable import DamagedLine
from gpu_worker.store.record_line import ParsedLine
from gpu_worker.store.scan import ScannedLine


@dataclass(frozen=True)
class OutcomeLines:
    """Neighbouring lines of one outcome, and the damaged ones among and behind them; or a damaged
    line alone. `unfinished`: nothing stands behind it yet, and its last line says that more
    follow."""

    lines: list[ScannedLine]
    unfinished: bool = False


def split_outcomes(lines: Iterable[ScannedLine]) -> Iterator[OutcomeLines]:
    """The lines of a segment, by outcome. Only the last can be unfinished.

    An outcome that lacks its last lines in the middle of a segment was damaged there, or its writer
    could not cut it back: what is left of it counts.
    """
    held: list[ScannedLine] = []
    last: ParsedLine | None = None
    for found in lines:
        drawn = found.drawn
        if drawn is not None:
            if held and not (last is not None and drawn.follows(last)):
                yield OutcomeLines(held)
                held = []
            last = drawn
        held.append(found)
        # Damage may fall into pieces: no more of it is held than would be an outcome.
        if last is None or last.is_last or len(held) >= last.num_images:
            yield OutcomeLines(held)
            held, last = [], None
    if held:
        yield OutcomeLines(held, unfinished=held[-1].drawn is not None)


def complete_length(path: Path) -> int:
    """The offset behind the last outcome that is not unfinished, found from the end.

    A last line that is damaged says nothing: then it is the offset behind that.

    Raises:
        OSError: the file cannot be read.
    """
    return complete_length_before(path, durable.whole_length(path))


def complete_length_before(path: Path, end: int) -> int:
    """As finished_length(), of what stands before the end of a line. Raises OSError."""
    with contextlib.closing(durable.lines_backwards(path, end)) as lines:
        begin, text = next(lines, (0, b""))
        first = _parse_or_none(text)
        if first is None or first.is_last:
            return end
        for offset, text in islice(lines, first.image_index):
            before = _parse_or_none(text)
            if before is not None:
                if not first.follows(before):
                    break
                begin, first = offset, before
        return begin


def _parse_or_none(text: bytes) -> ParsedLine | None:
    try:
        return record_line.parse(text)
    except DamagedLine:
        return None
