"""Reads the whole store and says what is wrong with it. Writes nothing, mends nothing. A leaf.

What a running process may be doing at this moment (a line half-written, a merge, a new note) is
information, not a fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway.fsck import check_index, raw_lines, scan_jobs
from gateway.fsck.report import Kind, Part, Report
from gateway.store import record_reader
from gateway.store.index_db import Entry
from gpu_worker.settings import Settings
from gpu_worker.store import outcomes, record_line, scan, segments
from gpu_worker.store.durable import DamagedLine
from gpu_worker.store.scan import ScannedLine
from gpu_worker.store.segments import Segment

DAMAGED_NAME = "damaged"
"""The folder, within that of the results, that holds what was taken out."""


def store(settings: Settings, names: list[str], survey: Report) -> None:
    """One look at everything.

    Args:
        names: the files in the folder of the results; what comes later is somebody's who runs.

    Raises:
        OSError: there is no room for a copy of the index.
    """
    folder, journal = settings.results_dir, settings.journal_path
    # Notes first: a job is in the journal before it is in a note.
    notes = list(scan_jobs.read_notes(folder, names, survey))
    all_segments = [segment for segment in map(segments.parse, names) if segment is not None]
    void = segments.replaced_segments(all_segments)
    live = sorted(set(all_segments) - set(void))
    growing = segments.open_segments(live)
    for segment in live:
        _segment(folder, segment, segment in growing, survey)
    scan_jobs.read_journal(journal, settings.deletions_path, survey)
    for segment in void:
        _replaced(folder, segment, survey)
    for uuid, num_found, num_records, name, offset in survey.incomplete():
        reason = (
            f"{num_found} of the {num_records} records of {uuid} are there, the others are lost"
        )
        survey.find(Kind.INCOMPLETE, folder / name, offset, reason)
    scan_jobs.report_info(folder, journal, survey)
    saved = folder / DAMAGED_NAME
    for note in notes:
        scan_jobs.check_note(note, journal, saved, survey)
    for path in [*(folder / name for name in names), *journal.parent.glob("*"), *saved.glob("*")]:
        _left_over(path, survey)
    check_index.index(folder, survey)


def _segment(folder: Path, segment: Segment, grows: bool, survey: Report) -> None:
    path, last = folder / segment.name, None
    for group in outcomes.split_outcomes(_lines(path, segment.writer, survey)):
        end = group.lines[-1].offset + group.lines[-1].length
        # Where nobody appends, or behind it is damage, what is left of an outcome counts.
        if group.unfinished and grows and end == survey.read_to.get(path):
            _unfinished(path, segment.writer, group.lines, survey)
            break
        for at in group.lines:
            if at.parsed is not None:
                last = at.parsed.uuid
                _record(
                    path, record_reader.entry(segment.name, at.offset, at.length, at.parsed), survey
                )
    if path in survey.read_to:
        survey.end_segment(segment, survey.read_to[path], last)


def _lines(path: Path, writer: str, survey: Report) -> Iterator[ScannedLine]:
    """The records of our version."""
    for offset, text in raw_lines.check_lines(path, writer, survey):
        try:
            yield ScannedLine(offset, len(text), record_line.parse(text))
        except DamagedLine as error:
            # Somebody meant to write this: another version. To take it out would lose it to that.
            reason = f"its checksum is right, but it {error}"
            survey.find(Kind.FOREIGN, path, offset, reason, is_fault=False)


def _record(path: Path, entry: Entry, survey: Report) -> None:
    first = survey.add(entry)
    if first is not None:
        reason = f"{entry.uuid} counts in {first.segment} at {first.offset}"
        survey.find(Kind.DOUBLED, path, entry.offset, reason)
        survey.take_out(path, Part(entry.offset, entry.length, entry.uuid, entry.image_index))


def _unfinished(path: Path, writer: str, lines: list[ScannedLine], survey: Report) -> None:
    """The first records of an outcome whose others its writer has not, or not yet, written."""
    survey.read_to[path] = lines[0].offset
    records = [at.parsed for at in lines if at.parsed is not None]
    reason = f"{len(lines)} of the {records[0].num_images} records of {records[0].uuid}"
    is_fault = not survey.is_live(writer)
    reason += ", without the others" if is_fault else f": {writer} is appending the others"
    survey.find(Kind.TORN, path, lines[0].offset, reason, is_fault=is_fault)
    for at, record in zip(lines if is_fault else [], records, strict=False):
        survey.take_out(path, Part(at.offset, at.length, record.uuid, record.image_index))


def _replaced(folder: Path, segment: Segment, survey: Report) -> None:
    """A void segment; should it hold what no other does, it is not to be thrown away."""
    path, alone = folder / segment.name, 0
    if survey.is_live("gateway"):
        reason = "by a merged one: the gateway is about to remove it"
        survey.find(Kind.REPLACED, path, None, reason, is_fault=False)
        return
    try:
        with raw_lines.open_plain(path) as file:
            for _, _, text in scan.whole_lines(file):
                alone += text is not None and _is_nowhere_else(text, survey)
    except OSError as error:
        raw_lines.cannot_read(path, error, survey)
        return
    reason = "by a merged one"
    if alone:
        reason += f"; {alone} of its results are nowhere else, so that it is moved aside"
    survey.find(Kind.REPLACED, path, None, reason)
    (survey.aside if alone else survey.void).append(path)


def _is_nowhere_else(text: bytes, survey: Report) -> bool:
    try:
        record = record_line.parse(text)
    except DamagedLine:
        return False
    there = survey.has_image(record.uuid, record.image_index)
    return not there and not survey.is_deleted(record.uuid)


def _left_over(path: Path, survey: Report) -> None:
    """Half a file, which is never renamed to a whole one any more when its writer is gone."""
    if not path.name.endswith((".jsonl.tmp", ".json.tmp")) and not (
        path.parent.name == DAMAGED_NAME and path.suffix == ".tmp"
    ):
        return
    if path.is_dir() and not path.is_symlink():
        return
    writer = path.name.partition(".")[0] if ".in_flight." in path.name else "gateway"
    if survey.is_live(writer):
        reason = f"{writer} is writing it"
        survey.find(Kind.LEFT_OVER, path, None, reason, is_fault=False)
    else:
        survey.find(Kind.LEFT_OVER, path, None, "half-written by a process that died")
        survey.void.append(path)
