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
from gpu_worker.store.record_line import Drawn
from gpu_worker.store.scan import Found


@dataclass(frozen=True)
class Group:
    """Neighbouring lines of one outcome, and the damaged ones among and behind them; or a damaged
    line alone. `unfinished`: nothing stands behind it yet, and its last line says that more
    follow."""

    lines: list[Found]
    unfinished: bool = False


def grouped(lines: Iterable[Found]) -> Iterator[Group]:
    """The lines of a segment, by outcome. Only the last can be unfinished.

    An outcome that lacks its last lines in the middle of a segment was damaged there, or its writer
    could not cut it back: what is left of it counts.
    """
    held: list[Found] = []
    last: Drawn | None = None
    for found in lines:
        drawn = found.drawn
        if drawn is not None:
            if held and not (last is not None and drawn.follows(last)):
                yield Group(held)
                held = []
            last = drawn
        held.append(found)
        # Damage may fall into pieces: no more of it is held than would be an outcome.
        if last is None or last.is_last or len(held) >= last.num_images:
            yield Group(held)
            held, last = [], None
    if held:
        yield Group(held, unfinished=held[-1].drawn is not None)


def finished_length(path: Path) -> int:
    """The offset behind the last outcome that is not unfinished, found from the end.

    A last line that is damaged says nothing: then it is the offset behind that.

    Raises:
        OSError: the file cannot be read.
    """
    return finished_before(path, durable.whole_length(path))


def finished_before(path: Path, end: int) -> int:
    """As finished_length(), of what stands before the end of a line. Raises OSError."""
    with contextlib.closing(durable.backwards(path, end)) as lines:
        begin, text = next(lines, (0, b""))
        first = _drawn(text)
        if first is None or first.is_last:
            return end
        for offset, text in islice(lines, first.image_index):
            before = _drawn(text)
            if before is not None:
                if not first.follows(before):
                    break
                begin, first = offset, before
        return begin


def _drawn(text: bytes) -> Drawn | None:
    try:
        return record_line.draw(text)
    except DamagedLine:
        return None
