"""Merges segments that are small or mostly garbage, so that deleted results leave the disk.

It can be killed at any instruction. The merged file appears by rename, and its name says which
segments it replaces: they count until then and no longer afterwards.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from gateway.store import record_reader
from gateway.store.index_db import Entry, IndexDb
from gateway.store.record_reader import SegmentFiles
from gateway.store.result_index import ResultIndex
from gpu_worker.store import durable, segments
from gpu_worker.store.durable import DamagedLine
from gpu_worker.store.segments import Segment

log = logging.getLogger(__name__)

GARBAGE_RATIO = 0.5
"""A segment with a larger share of deleted bytes is rewritten: at most half the disk is wasted."""


def clean_up(directory: Path) -> None:
    """Remove the files of an interrupted merge: half a file, or replaced segments.

    Raises:
        OSError: a file cannot be removed.
    """
    for half in directory.glob("*.jsonl.tmp"):
        half.unlink()
    _remove(directory, segments.replaced_segments(segments.list_all(directory)))


def closed_segments(directory: Path) -> list[Segment]:
    """Return the segments that are no longer appended to: all but each writer's newest."""
    live = segments.live_segments(directory)
    newest = {segment.writer: segment for segment in live}
    return [segment for segment in live if segment != newest[segment.writer]]


def runs(
    index: ResultIndex, segment_bytes: int, rewrite: frozenset[str] = frozenset()
) -> Iterator[list[Segment]]:
    """Yield neighbouring segments to merge: small or mostly garbage, together no larger than one.

    A segment that is not indexed to its end, or is damaged, is left alone: records that the index
    does not know would be lost.

    Args:
        rewrite: names of segments to merge whatever they hold.
    """
    live_bytes = index.query(IndexDb.live_bytes)
    for _, group in groupby(closed_segments(index.directory), key=lambda segment: segment.writer):
        run: list[Segment] = []
        total, any_garbage = 0, False
        for segment in group:
            size = (index.directory / segment.name).stat().st_size
            live = live_bytes.get(segment.name, 0)
            is_garbage = segment.name in rewrite or live < (1 - GARBAGE_RATIO) * size
            worth = (is_garbage or size < segment_bytes // 2) and _is_sound(index, segment, size)
            if not worth or total + live > segment_bytes:
                if len(run) > 1 or any_garbage:
                    yield run
                run, total, any_garbage = [], 0, False
            if worth:
                run.append(segment)
                total, any_garbage = total + live, any_garbage or is_garbage
        if len(run) > 1 or any_garbage:
            yield run


class DamagedRecord(Exception):
    """A record of this segment has been damaged since it was indexed."""

    def __init__(self, segment: str, error: DamagedLine) -> None:
        super().__init__(f"{segment} has a record that {error}")
        self.segment = segment


def merge(index: ResultIndex, run: list[Segment]) -> bool:
    """Merge a run into one segment, and return whether it was merged.

    Readers find every record before, during and after. Nothing is merged when a record has been
    damaged since it was indexed. Then its segment is indexed again, so that the damage is counted
    and the segment is left alone from now on. The bytes stay where they are.

    Raises:
        OSError: the merge failed; nothing has changed for readers.
    """
    try:
        _merge(index, run)
    except DamagedRecord as error:
        log.warning("the segments from %s on are not merged: %s", run[0].name, error)
        index.reread(error.segment)
        return False
    return True


def _merge(index: ResultIndex, run: list[Segment]) -> None:
    """Merge a run. Raises DamagedRecord, OSError."""
    merged = Segment(run[0].writer, run[0].first, run[-1].last)
    entries = [entry for segment in run for entry in _records(index, segment)]
    temporary = index.directory / f"{merged.name}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, 0o600)
    try:
        moved = list(_copy(index.open_segments, entries, descriptor, merged.name))
        size = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.fdatasync(descriptor)
        index.replace(
            [segment.name for segment in run],
            merged.name,
            moved,
            size,
            publish=lambda: _publish(temporary, index.directory / merged.name),
        )
    except (OSError, DamagedRecord):
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(descriptor)
    durable.sync_directory(index.directory)
    _remove(index.directory, [segment for segment in run if segment != merged])
    log.info("merged %d segments into %s, %d results", len(run), merged.name, len(moved))


def _is_sound(index: ResultIndex, segment: Segment, size: int) -> bool:
    """Return whether all `size` bytes are indexed and none of them are damaged."""
    return index.query(lambda db: db.is_sound(segment.name, size))


def _records(index: ResultIndex, segment: Segment) -> list[Entry]:
    return index.query(lambda db: db.records_of(segment.name))


def _copy(source: SegmentFiles, entries: list[Entry], target: int, name: str) -> Iterator[Entry]:
    """Copy the lines, each verified. Raises DamagedRecord, OSError."""
    offset = 0
    for entry in entries:
        try:
            text = record_reader.whole(source, entry) + b"\n"
        except DamagedLine as error:
            raise DamagedRecord(entry.segment, error) from None
        durable.write_all(target, text)
        yield entry._replace(segment=name, offset=offset)
        offset += len(text)


def _publish(temporary: Path, target: Path) -> None:
    temporary.replace(target)


def _remove(directory: Path, replaced: list[Segment]) -> None:
    for segment in replaced:
        (directory / segment.name).unlink(missing_ok=True)
    if replaced:
        durable.sync_directory(directory)
