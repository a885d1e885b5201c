"""Reads the gateway's journal and the workers' notes of running jobs.

Of the events in the journal it uses only acceptances and deletions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from gateway.fsck import raw_lines
from gateway.fsck.report import Kind, Report
from gateway.store import journal_event
from gateway.store.gallery import labels_log
from gpu_worker.store import durable
from gpu_worker.store.durable import DamagedLine
from gpu_worker.store.in_flight import InFlightJob, writer_of


@dataclass(frozen=True)
class Note:
    """The job of a worker's note, or the fault of the note."""

    path: Path
    writer: str
    uuid: str | None
    fault: str = ""


def read_notes(folder: Path, names: list[str], report: Report) -> Iterator[Note]:
    """Yield the notes of the workers that are not running. A running one changes its notes."""
    for name in names:
        path = folder / name
        writer = writer_of(path)
        if writer is None or report.is_live(writer):
            continue
        try:
            note = InFlightJob.model_validate_json(durable.read_plain(path))
        except ValidationError as error:
            yield Note(path, writer, None, f"{error.error_count()} of its fields are invalid")
        except OSError as error:
            raw_lines.cannot_read(path, error, report)
        else:
            yield Note(path, writer, note.job.uuid)


def read_journal(path: Path, deletions: Path, report: Report) -> None:
    """Add the acceptances and deletions to the report, also those of the tombstones."""
    if deletions.exists() or deletions.is_symlink():
        _read_events(deletions, report)
    if not path.exists() and not path.is_symlink():
        reason = "is missing; the waiting jobs and the deleted results are unknown"
        report.find(Kind.MISSING, path, None, reason, is_fault=False)
        return
    _read_events(path, report)


def _read_events(path: Path, report: Report) -> None:
    for offset, text in raw_lines.check_lines(path, "gateway", report):
        try:
            event = journal_event.decode(text)
        except DamagedLine as error:
            raw_lines.foreign_line(path, offset, error, report)
            continue
        match event:
            case {"event": "accepted", "job": {"uuid": str(uuid)}}:
                report.accept(uuid, offset)
            case {"event": "deleted", "uuid": str(uuid)}:
                report.delete(uuid)


def read_labels(path: Path, report: Report) -> None:
    """Add the images that were deleted one by one to the report. A store may have no labels."""
    if not path.exists() and not path.is_symlink():
        return
    for offset, text in raw_lines.check_lines(path, "gateway", report):
        try:
            event, names, _ = labels_log.decode(text)
        except DamagedLine as error:
            raw_lines.foreign_line(path, offset, error, report)
            continue
        if event == labels_log.DELETED:
            for name in names:
                report.delete_image(*name)


def report_info(folder: Path, journal: Path, report: Report) -> None:
    """Report the waiting jobs and the deleted results that are still on the disk."""
    for uuid, offset in report.waiting():
        reason = f"{uuid} has no outcome yet"
        report.find(Kind.WAITING, journal, offset, reason, is_fault=False)
    for uuid, segment, offset in report.deleted():
        reason = f"{uuid} is removed from the disk at the next consolidation"
        report.find(Kind.DELETED, folder / segment, offset, reason, is_fault=False)


def check_note(note: Note, journal: Path, saved: Path, report: Report) -> None:
    """Check whether the worker of this note would run an accepted job.

    The worker runs the job again unless its newest record is of this job.
    """
    if note.uuid is None:
        report.find(Kind.NOTE, note.path, None, f"unreadable: {note.fault}")
        report.quarantined.append(note.path)
    elif report.newest.get(note.writer) == note.uuid:
        return
    elif report.has_result(note.uuid):
        report.find(Kind.NOTE, note.path, None, f"{note.uuid} has an outcome and would run again")
        report.obsolete.append(note.path)
    elif report.is_deleted(note.uuid):
        report.find(Kind.NOTE, note.path, None, f"{note.uuid} is deleted and would run again")
        report.obsolete.append(note.path)
    elif not report.is_accepted(note.uuid) and not _has_lost_lines(note, journal, saved, report):
        report.find(Kind.NOTE, note.path, None, f"{note.uuid} was never accepted")
        report.quarantined.append(note.path)


def _has_lost_lines(note: Note, journal: Path, saved: Path, report: Report) -> bool:
    """Return whether the acceptance or the outcome may be among damaged lines.

    Then the note is the last trace of an accepted job, and the job runs again.
    """
    files = [path.name for path in (*report.files_to_repair(), *saved.glob("*"))]
    has_damage = any(name.startswith((journal.name, f"{note.writer}.0")) for name in files)
    has_newer_lines = bool(report.counts[False, Kind.FOREIGN])
    return has_damage or has_newer_lines or not journal.exists()
