"""Groups the lines of one job's outcome: one line for each image, in order.

An outcome is written at once, so a crash can only cut its end. Each line says whether more follow.
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
    """The lines of one outcome in a row, with damaged lines among and after them.

    A damaged line may be alone. `unfinished` means that this is the last outcome and that its last
    line says that more follow.
    """

    lines: list[ScannedLine]
    unfinished: bool = False


def split_outcomes(lines: Iterable[ScannedLine]) -> Iterator[OutcomeLines]:
    """Yield the lines of a segment by outcome. Only the last can be unfinished.

    An outcome in the middle that lacks its last lines was damaged, or its writer could not cut it.
    What is left of it counts.
    """
    group: list[ScannedLine] = []
    last: ParsedLine | None = None
    for line in lines:
        if line.parsed is not None:
            if group and not (last is not None and line.parsed.follows(last)):
                yield OutcomeLines(group)
                group = []
            last = line.parsed
        group.append(line)
        # Damage may have many lines, so a group has at most the lines of one outcome.
        if last is None or last.is_last or len(group) >= last.num_images:
            yield OutcomeLines(group)
            group, last = [], None
    if group:
        yield OutcomeLines(group, unfinished=group[-1].parsed is not None)


def complete_length(path: Path) -> int:
    """Return the offset after the last finished outcome, found from the end.

    A damaged last line says nothing, so it is the offset after that line.

    Raises:
        OSError: the file cannot be read.
    """
    return complete_length_before(path, durable.whole_length(path))


def complete_length_before(path: Path, end: int) -> int:
    """Return what complete_length() returns, of the lines before `end`. Raises OSError."""
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
