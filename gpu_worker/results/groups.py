"""Several lines of one job, appended at once: what a crash in the middle has left of them. A leaf.

A job's lines stand behind one another in one segment and count from 0 to num_images - 1. Readers
see all of them or none.
"""

from __future__ import annotations

from pathlib import Path

from gpu_worker import durable
from gpu_worker.durable import DamagedLine
from gpu_worker.results import line
from gpu_worker.results.line import Drawn


class Tail:
    """Follows a segment's lines. `begin`: where a group that has not ended yet starts, or None."""

    def __init__(self) -> None:
        self.begin: int | None = None
        self._uuid: str | None = None
        self._left = 0

    def take(self, offset: int, drawn: Drawn | None) -> None:
        """The next line; a damaged one (None) is taken for one of the open group's."""
        if drawn is None:
            self._left -= 1
        else:
            if self.begin is None or drawn.uuid != self._uuid:
                self.begin, self._uuid = offset, drawn.uuid
            self._left = drawn.num_images - drawn.image_index - 1
        if self._left <= 0:
            self.begin = None


def cut_short(path: Path) -> int | None:
    """Where the last group begins, if its last lines are lacking; None when it is whole.

    Raises:
        OSError: the file cannot be read.
    """
    text = durable.last_line(path)
    begin = durable.whole_length(path) - len(text)
    try:
        last = line.draw(text)
    except DamagedLine:
        return None
    if last.image_index + 1 >= last.num_images:
        return None
    for _ in range(last.image_index):
        text = durable.last_line(path, begin)
        if not line.begins(text, last.uuid):
            break
        begin -= len(text)
    return begin
