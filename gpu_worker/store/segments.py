"""Names and orders the files of the log, and finds those that a merged file replaces.

gpu-0.00000007.jsonl            segment 7 of the writer gpu-0
gpu-0.00000001-00000006.jsonl   segments 1 to 6, merged; it replaces the single files
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DAMAGED_NAME = "damaged"
"""The folder for bytes that `sde fsck --fix` has taken out of files, within the results folder."""

_NAME = re.compile(r"([a-z]+(?:-\d+)?)\.(\d{8})(?:-(\d{8}))?\.jsonl")


@dataclass(frozen=True, order=True)
class Segment:
    """The segments `first` to `last` of a writer. Both are equal if it is not merged."""

    writer: str
    first: int
    last: int

    @property
    def name(self) -> str:
        """Return the name of the file."""
        span = f"{self.first:08d}" + (f"-{self.last:08d}" if self.last != self.first else "")
        return f"{self.writer}.{span}.jsonl"

    def covers(self, other: Segment) -> bool:
        """Return whether this segment has everything that the other has."""
        return (
            self != other
            and self.writer == other.writer
            and self.first <= other.first
            and other.last <= self.last
        )


def parse(name: str) -> Segment | None:
    """Return the segment of this name; None for another file."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    first = int(match[2])
    return Segment(match[1], first, int(match[3] or first))


def list_all(directory: Path) -> list[Segment]:
    """Return every segment of a directory by writer and number, replaced ones included."""
    parsed = (parse(path.name) for path in directory.iterdir())
    return sorted(segment for segment in parsed if segment is not None)


def replaced_segments(segments: Iterable[Segment]) -> list[Segment]:
    """Return the segments that are also in a merged one, after an interrupted merge."""
    replaced: list[Segment] = []
    widest: Segment | None = None
    # By writer and first number, the widest first, so that what covers a segment precedes it.
    for segment in sorted(segments, key=lambda s: (s.writer, s.first, -s.last)):
        if widest is not None and widest.covers(segment):
            replaced.append(segment)
        else:
            widest = segment
    return replaced


def live_segments(directory: Path) -> list[Segment]:
    """Return the segments that are not replaced, by writer and number."""
    return _without_replaced(list_all(directory))


def sizes(directory: Path) -> dict[str, int]:
    """Return the name and size in bytes of each live segment. Raises OSError."""
    with os.scandir(directory) as entries:
        files = {segment: entry for entry in entries if (segment := parse(entry.name))}
        return {
            segment.name: files[segment].stat().st_size
            for segment in _without_replaced(sorted(files))
        }


def _without_replaced(segments: list[Segment]) -> list[Segment]:
    replaced = set(replaced_segments(segments))
    return [segment for segment in segments if segment not in replaced]


def open_segments(live: Iterable[Segment]) -> set[Segment]:
    """Return the segments that their writers append to: each newest one that is not merged."""
    newest = {segment.writer: segment for segment in sorted(live)}
    return {segment for segment in newest.values() if segment.first == segment.last}


def newest(directory: Path, writer: str) -> Segment | None:
    """Return a writer's newest segment; None when it has none."""
    own = [segment for segment in live_segments(directory) if segment.writer == writer]
    return max(own, key=lambda segment: segment.last, default=None)


def has_saved_damage(directory: Path) -> bool:
    """Return whether `sde fsck --fix` has saved damaged bytes of this directory. Raises OSError."""
    saved = directory / DAMAGED_NAME
    return saved.is_dir() and any(saved.iterdir())
