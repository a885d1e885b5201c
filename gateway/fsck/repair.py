"""Repairs the faults of a report. The caller holds all locks.

The repair can be killed at any instruction. Bytes are saved in the folder of damaged data before
they leave their file, and files are replaced by rename. A second run continues.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from gateway.fsck.report import Part, Report
from gateway.store import index_db
from gateway.store.index_file import INDEX_NAME
from gpu_worker.store import durable, outcomes, segments
from gpu_worker.store.segments import Segment

_CHUNK_BYTES = 1 << 20
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


def store(folder: Path, report: Report) -> None:
    """Repair a store that is locked by this process.

    Raises:
        OSError: the disk refuses a write; the remaining faults are unchanged.
    """
    saved = folder / segments.DAMAGED_NAME
    files = report.files_to_repair()
    if report.index_is_bad or files:
        # The index goes first, because it is wrong as soon as a line moves.
        _remove_index(folder)
    for path in files:
        _remove_parts(path, saved, report)
    for path in report.quarantined:
        _quarantine(path, saved / path.name, None)
        path.unlink()
    for path in report.obsolete:
        path.unlink(missing_ok=True)
    for directory in {path.parent for path in (*report.quarantined, *report.obsolete)}:
        durable.sync_directory(directory)


def _remove_index(folder: Path) -> None:
    for part in index_db.files(folder / INDEX_NAME):
        part.unlink(missing_ok=True)
    durable.sync_directory(folder)


def _remove_parts(path: Path, saved: Path, report: Report) -> None:
    size, count_removed, left, last = path.stat().st_size, 0, 0, Part(0, 0)
    for part in report.parts(path):
        if part.offset > last.offset + last.length:
            left = part.offset
        # A deleted result must not be kept under another name.
        if part.uuid is None or not report.is_image_deleted(part.uuid, part.image_index):
            _quarantine(path, saved / f"{path.name}.{part.offset}", part)
        count_removed, last = count_removed + 1, part
    _start_new_segment(path, left if last.offset + last.length == size else size)
    if count_removed == 1 and last.offset + last.length == size:
        _cut(path, last.offset)
    else:
        _rewrite(path, report.parts(path), size)


def _start_new_segment(path: Path, left: int) -> None:
    """Create the next segment if the open one ends within an outcome.

    Its writer would take that outcome for the rest of a crash, and would cut it off. `left` is the
    length of the segment without the removed bytes at its end.
    """
    segment = segments.parse(path.name)
    if segment is None or segment not in segments.open_segments(
        segments.live_segments(path.parent)
    ):
        return
    if outcomes.complete_length_before(path, left) < left:
        number = segment.last + 1
        following = path.with_name(Segment(segment.writer, number, number).name)
        with _open(following, _CREATE):
            durable.sync_directory(path.parent)


def _quarantine(path: Path, target: Path, part: Part | None) -> None:
    """Copy a part of a file, or all of it, unless an equal copy exists already."""
    target.parent.mkdir(mode=0o700, exist_ok=True)
    temporary = target.with_name(f"{target.name}.tmp")
    with _open(path, _READ) as source, _open(temporary, _CREATE) as copy:
        begin, end = (part.offset, part.offset + part.length) if part else (0, None)
        _copy(source, copy, begin, os.fstat(source).st_size if end is None else end)
        os.fdatasync(copy)
    for number in count():
        destination = target.with_name(f"{target.name}.{number}") if number else target
        if not destination.exists():
            temporary.rename(destination)
            break
        if filecmp.cmp(temporary, destination, shallow=False):
            temporary.unlink()
            break
    durable.sync_directory(target.parent)
    durable.sync_directory(target.parent.parent)


def _cut(path: Path, length: int) -> None:
    with _open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW) as descriptor:
        os.ftruncate(descriptor, length)
        os.fdatasync(descriptor)


def _rewrite(path: Path, parts: Iterable[Part], size: int) -> None:
    """Replace a file by the bytes between the parts."""
    with _open(path, _READ) as source, durable.replacement(path) as target:
        offset = 0
        for part in parts:
            _copy(source, target, offset, part.offset)
            offset = part.offset + part.length
        _copy(source, target, offset, size)


@contextlib.contextmanager
def _open(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _copy(source: int, target: int, begin: int, end: int) -> None:
    while begin < end:
        chunk = os.pread(source, min(_CHUNK_BYTES, end - begin), begin)
        if not chunk:
            raise OSError("a file became shorter during the copy")
        durable.write_all(target, chunk)
        begin += len(chunk)
