"""Reads the whole store and reports its faults. It writes nothing.

The traces of a running process are information: an incomplete line, a merge, a new note.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway.fsck import check_index, raw_lines, scan_jobs
from gateway.fsck.report import Kind, Part, Report
from gateway.store import record_reader
from gateway.store.index_db import Entry
from gpu_worker.settings import Settings
from gpu_worker.store import durable, outcomes, record_line, scan, segments
from gpu_worker.store.durable import DamagedLine
from gpu_worker.store.scan import ScannedLine
from gpu_worker.store.segments import Segment


def store(settings: Settings, names: list[str], report: Report) -> None:
    """Check all files of the store.

    Args:
        names: the files in the results folder. Later files belong to a running process.

    Raises:
        OSError: the disk has no room for a copy of the index.
    """
    folder, journal = settings.results_dir, settings.journal_path
    # The notes are read first, because a job is in the journal before it is in a note.
    notes = list(scan_jobs.read_notes(folder, names, report))
    all_segments = [segment for segment in map(segments.parse, names) if segment is not None]
    obsolete = segments.replaced_segments(all_segments)
    live = sorted(set(all_segments) - set(obsolete))
    growing = segments.open_segments(live)
    for segment in live:
        _segment(folder, segment, segment in growing, report)
    scan_jobs.read_journal(journal, settings.deletions_path, report)
    scan_jobs.read_labels(settings.labels_path, report)
    for segment in obsolete:
        _replaced(folder, segment, report)
    for uuid, num_found, num_records, name, offset in report.incomplete():
        reason = f"{num_found} of the {num_records} records of {uuid} exist; the others are lost"
        report.find(Kind.INCOMPLETE, folder / name, offset, reason)
    scan_jobs.report_info(folder, journal, report)
    saved = folder / segments.DAMAGED_NAME
    for note in notes:
        scan_jobs.check_note(note, journal, saved, report)
    for path in [*(folder / name for name in names), *journal.parent.glob("*"), *saved.glob("*")]:
        _left_over(path, report)
    check_index.index(folder, report)


def _segment(folder: Path, segment: Segment, grows: bool, report: Report) -> None:
    path, last = folder / segment.name, None
    for group in outcomes.split_outcomes(_lines(path, segment.writer, report)):
        end = group.lines[-1].offset + group.lines[-1].length
        # In a closed segment, or before damage, the rest of an outcome counts.
        if group.unfinished and grows and end == report.read_to.get(path):
            _unfinished(path, segment.writer, group.lines, report)
            break
        for at in group.lines:
            if at.parsed is not None:
                last = at.parsed.uuid
                _record(
                    path, record_reader.entry(segment.name, at.offset, at.length, at.parsed), report
                )
    if path in report.read_to:
        report.end_segment(segment, report.read_to[path], last)


def _lines(path: Path, writer: str, report: Report) -> Iterator[ScannedLine]:
    """Yield the records of this version."""
    for offset, text in raw_lines.check_lines(path, writer, report):
        try:
            yield ScannedLine(offset, len(text), record_line.parse(text))
        except DamagedLine as error:
            raw_lines.foreign_line(path, offset, error, report)


def _record(path: Path, entry: Entry, report: Report) -> None:
    first = report.add(entry)
    if first is not None:
        reason = f"{entry.uuid} is in {first.segment} at {first.offset} already"
        report.find(Kind.DOUBLED, path, entry.offset, reason)
        report.take_out(path, Part(entry.offset, entry.length, entry.uuid, entry.image_index))


def _unfinished(path: Path, writer: str, lines: list[ScannedLine], report: Report) -> None:
    """Report the first records of an outcome that its writer has not finished."""
    report.read_to[path] = lines[0].offset
    records = [at.parsed for at in lines if at.parsed is not None]
    reason = f"{len(lines)} of the {records[0].num_images} records of {records[0].uuid}"
    is_fault = not report.is_live(writer)
    reason += " without the others" if is_fault else f": {writer} is appending the others"
    report.find(Kind.TORN, path, lines[0].offset, reason, is_fault=is_fault)
    for at, record in zip(lines if is_fault else [], records, strict=False):
        report.take_out(path, Part(at.offset, at.length, record.uuid, record.image_index))


def _replaced(folder: Path, segment: Segment, report: Report) -> None:
    """Report an obsolete segment. It is quarantined if it has a record that no other has."""
    path, alone = folder / segment.name, 0
    if report.is_live("gateway"):
        reason = "by a merged one; the gateway is about to remove it"
        report.find(Kind.REPLACED, path, None, reason, is_fault=False)
        return
    try:
        with durable.open_plain(path, scan.CHUNK_BYTES) as file:
            for _, _, text in scan.whole_lines(file):
                alone += text is not None and _is_nowhere_else(text, report)
    except OSError as error:
        raw_lines.cannot_read(path, error, report)
        return
    reason = "by a merged one"
    if alone:
        reason += f"; {alone} of its results are in no other segment, so it is quarantined"
    report.find(Kind.REPLACED, path, None, reason)
    (report.quarantined if alone else report.obsolete).append(path)


def _is_nowhere_else(text: bytes, report: Report) -> bool:
    try:
        record = record_line.parse(text)
    except DamagedLine:
        return False
    exists = report.has_image(record.uuid, record.image_index)
    return not exists and not report.is_image_deleted(record.uuid, record.image_index)


def _left_over(path: Path, report: Report) -> None:
    """Report a temporary file, which stays for ever if its writer has died."""
    if not path.name.endswith((".jsonl.tmp", ".json.tmp")) and not (
        path.parent.name == segments.DAMAGED_NAME and path.suffix == ".tmp"
    ):
        return
    if path.is_dir() and not path.is_symlink():
        return
    writer = path.name.partition(".")[0] if ".in_flight." in path.name else "gateway"
    if report.is_live(writer):
        reason = f"{writer} is writing it"
        report.find(Kind.LEFT_OVER, path, None, reason, is_fault=False)
    else:
        report.find(Kind.LEFT_OVER, path, None, "a process that died has left it incomplete")
        report.obsolete.append(path)
