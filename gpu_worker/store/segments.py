"""The log's files: their names, their order, and which have been replaced by others. A leaf.

gpu-0.00000007.jsonl            segment 7 of the writer gpu-0
gpu-0.00000001-00000006.jsonl   segments 1 to 6 of it, merged: these, if still there, are void
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"([a-z]+(?:-\d+)?)\.(\d{8})(?:-(\d{8}))?\.jsonl")


@dataclass(frozen=True, order=True)
class Segment:
    """Numbers `first` to `last` of a writer, both included; equal in a segment not merged."""

    writer: str
    first: int
    last: int

    @property
    def name(self) -> str:
        """The file's name."""
        span = f"{self.first:08d}" + (f"-{self.last:08d}" if self.last != self.first else "")
        return f"{self.writer}.{span}.jsonl"

    def covers(self, other: Segment) -> bool:
        """Whether this one holds all that the other does."""
        return (
            self != other
            and self.writer == other.writer
            and self.first <= other.first
            and other.last <= self.last
        )


def parse(name: str) -> Segment | None:
    """The segment of this name; None when it is another file."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    first = int(found[2])
    return Segment(found[1], first, int(found[3] or first))


def list_all(directory: Path) -> list[Segment]:
    """Every segment file of a directory, by writer and number, replaced ones included."""
    found = (parse(path.name) for path in directory.iterdir())
    return sorted(segment for segment in found if segment is not None)


def replaced_segments(segments: Iterable[Segment]) -> list[Segment]:
    """Those whose content is in a merged one too: a merge died before it could remove them."""
    void: list[Segment] = []
    widest: Segment | None = None
    # By writer and first number, the widest first: whatever covers a segment stands before it.
    for segment in sorted(segments, key=lambda s: (s.writer, s.first, -s.last)):
        if widest is not None and widest.covers(segment):
            void.append(segment)
        else:
            widest = segment
    return void


def live_segments(directory: Path) -> list[Segment]:
    """The segments that count, by writer and number."""
    return _without_replaced(list_all(directory))


def sizes(directory: Path) -> dict[str, int]:
    """Name and bytes of the segments that count, by writer and number. Raises OSError."""
    with os.scandir(directory) as entries:
        found = {segment: entry for entry in entries if (segment := parse(entry.name))}
        return {
            segment.name: found[segment].stat().st_size
            for segment in _without_replaced(sorted(found))
        }


def _without_replaced(found: list[Segment]) -> list[Segment]:
    void = set(replaced_segments(found))
    return [segment for segment in found if segment not in void]


def open_segments(live: Iterable[Segment]) -> set[Segment]:
    """Of the segments that count those that their writers append to: the newest, but no merged."""
    newest = {segment.writer: segment for segment in sorted(live)}
    return {segment for segment in newest.values() if segment.first == segment.last}


def newest(directory: Path, writer: str) -> Segment | None:
    """The one that its writer may still append to; None when it has none."""
    own = [segment for segment in live_segments(directory) if segment.writer == writer]
    return max(own, key=lambda segment: segment.last, default=None)
