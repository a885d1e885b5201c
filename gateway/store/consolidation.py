"""Merges segments that are small or mostly garbage, so that deleted results leave the disk.

Safe to kill at any instruction: the merged file appears by rename, under a name that says which
segments it makes void; until then they count, and from then on they do not.
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
from gpu_worker.store.segments import Segment

log = logging.getLogger(__name__)

GARBAGE_RATIO = 0.5
"""A segment with more dead bytes than this is rewritten: at most half the disk is waste."""


def clean_up(directory: Path) -> None:
    """Remove what a merge that was killed has left: half a file, or replaced segments.

    Raises:
        OSError: something cannot be removed.
    """
    for half in directory.glob("*.jsonl.tmp"):
        half.unlink()
    _remove(directory, segments.replaced_segments(segments.list_all(directory)))


def closed_segments(directory: Path) -> list[Segment]:
    """The segments that nobody appends to: all of a writer but its newest."""
    found = segments.live_segments(directory)
    newest = {segment.writer: segment for segment in found}
    return [segment for segment in found if segment != newest[segment.writer]]


def runs(
    index: ResultIndex, segment_bytes: int, wanted: frozenset[str] = frozenset()
) -> Iterator[list[Segment]]:
    """Neighbours that are worth one file: small or mostly garbage, and together no larger than one.

    A segment that the index has not read to its end, or in which it found damage, is left alone:
    what it does not know it would not copy.

    Args:
        wanted: names of segments that are worth it whatever they hold.
    """
    live_bytes = index.query(IndexDb.live_bytes)
    for _, own in groupby(closed_segments(index.directory), key=lambda segment: segment.writer):
        run: list[Segment] = []
        total, any_garbage = 0, False
        for segment in own:
            size = (index.directory / segment.name).stat().st_size
            live = live_bytes.get(segment.name, 0)
            is_garbage = segment.name in wanted or live < (1 - GARBAGE_RATIO) * size
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


def merge(index: ResultIndex, run: list[Segment]) -> None:
    """Make one segment of a run; readers find every record before, during and after.

    Raises:
        OSError: nothing has changed for readers.
    """
    merged = Segment(run[0].writer, run[0].first, run[-1].last)
    entries = [entry for segment in run for entry in _records(index, segment)]
    fresh = index.directory / f"{merged.name}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(fresh, flags, 0o600)
    try:
        moved = list(_copy(index.open_segments, entries, descriptor, merged.name))
        size = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.fdatasync(descriptor)
        index.replace(
            [segment.name for segment in run],
            merged.name,
            moved,
            size,
            publish=lambda: _put(fresh, index.directory / merged.name),
        )
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    finally:
        os.close(descriptor)
    durable.sync_directory(index.directory)
    _remove(index.directory, [segment for segment in run if segment != merged])
    log.info("merged %d segments into %s, %d results", len(run), merged.name, len(moved))


def _is_sound(index: ResultIndex, segment: Segment, size: int) -> bool:
    """Whether all `size` bytes are indexed, and nothing in them was damaged."""
    return index.query(lambda db: db.is_sound(segment.name, size))


def _records(index: ResultIndex, segment: Segment) -> list[Entry]:
    return index.query(lambda db: db.of_segment(segment.name))


def _copy(source: SegmentFiles, entries: list[Entry], target: int, name: str) -> Iterator[Entry]:
    """Copy the lines, each verified; a damaged one stays behind and is reported."""
    offset = 0
    for entry in entries:
        try:
            text = record_reader.whole(source, entry) + b"\n"
        except durable.DamagedLine as error:
            log.warning("left a record out of a merge: %s", error)
            continue
        durable.write_all(target, text)
        yield entry._replace(segment=name, offset=offset)
        offset += len(text)


def _put(fresh: Path, target: Path) -> None:
    fresh.replace(target)


def _remove(directory: Path, void: list[Segment]) -> None:
    for segment in void:
        (directory / segment.name).unlink(missing_ok=True)
    if void:
        durable.sync_directory(directory)
