"""Reads the gateway's journal and the workers' notes beside the results: which jobs wait. A leaf.

Of the journal's events it knows only who was accepted and what was deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from gateway.fsck import raw_lines
from gateway.fsck.report import Kind, Report
from gpu_worker.store.in_flight import InFlightJob, writer_of

JOURNAL_VERSION = 1
"""Lines of another are left alone."""


@dataclass(frozen=True)
class Note:
    """The job that a worker has begun, or what is wrong with the note."""

    path: Path
    writer: str
    uuid: str | None
    fault: str = ""


def read_notes(folder: Path, names: list[str], survey: Report) -> Iterator[Note]:
    """The notes of the workers that do not run: a running one replaces its own at any moment."""
    for name in names:
        path = folder / name
        writer = writer_of(path)
        if writer is None or survey.is_live(writer):
            continue
        try:
            with raw_lines.open_plain(path) as file:
                note = InFlightJob.model_validate_json(file.read())
        except ValidationError as error:
            yield Note(path, writer, None, f"{error.error_count()} of its fields are wrong")
        except OSError as error:
            raw_lines.cannot_read(path, error, survey)
        else:
            yield Note(path, writer, note.job.uuid)


def read_journal(path: Path, deletions: Path, survey: Report) -> None:
    """Take in what was accepted and what was deleted, also what has left the journal."""
    if deletions.exists() or deletions.is_symlink():
        _read_events(deletions, survey)
    if not path.exists() and not path.is_symlink():
        reason = "there is no journal: which jobs wait and which results are deleted is not known"
        survey.find(Kind.MISSING, path, None, reason, is_fault=False)
        return
    _read_events(path, survey)


def _read_events(path: Path, survey: Report) -> None:
    for offset, text in raw_lines.check_lines(path, "gateway", survey):
        match _event(text):
            case {"event": "accepted", "job": {"uuid": str(uuid)}}:
                survey.accept(uuid, offset)
            case {"event": "deleted", "uuid": str(uuid)}:
                survey.delete(uuid)
            case None:
                reason = f"its checksum is right, but it is no event of version {JOURNAL_VERSION}"
                survey.find(Kind.FOREIGN, path, offset, reason, is_fault=False)


def report_info(folder: Path, journal: Path, survey: Report) -> None:
    """What is no fault: jobs that wait for their outcome, deleted results still on the disk."""
    for uuid, offset in survey.waiting():
        reason = f"waits: {uuid} has no outcome yet"
        survey.find(Kind.WAITING, journal, offset, reason, is_fault=False)
    for uuid, segment, offset in survey.deleted():
        reason = f"{uuid} leaves the disk at the next consolidation"
        survey.find(Kind.DELETED, folder / segment, offset, reason, is_fault=False)


def check_note(note: Note, journal: Path, saved: Path, survey: Report) -> None:
    """Whether the worker that reads this note does what was accepted.

    It runs the job again unless its newest record is this job's.
    """
    if note.uuid is None:
        survey.find(Kind.NOTE, note.path, None, f"unreadable: {note.fault}")
        survey.aside.append(note.path)
    elif survey.newest.get(note.writer) == note.uuid:
        return
    elif survey.has_result(note.uuid):
        survey.find(Kind.NOTE, note.path, None, f"{note.uuid} has its outcome and would run again")
        survey.void.append(note.path)
    elif survey.is_deleted(note.uuid):
        survey.find(Kind.NOTE, note.path, None, f"{note.uuid} is deleted and would run again")
        survey.void.append(note.path)
    elif not survey.is_accepted(note.uuid) and not _has_lost_lines(note, journal, saved, survey):
        survey.find(Kind.NOTE, note.path, None, f"{note.uuid} was never accepted")
        survey.aside.append(note.path)


def _has_lost_lines(note: Note, journal: Path, saved: Path, survey: Report) -> bool:
    """Whether the acceptance, or the outcome, may be among lines that were damaged.

    Then the note is the last that is left of an accepted job, and a second run makes up for it.
    """
    files = [path.name for path in (*survey.files_to_mend(), *saved.glob("*"))]
    has_damage = any(name.startswith((journal.name, f"{note.writer}.0")) for name in files)
    return has_damage or not journal.exists()


def _event(text: bytes) -> dict[str, Any] | None:
    try:
        event = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if event.get("v") != JOURNAL_VERSION or not isinstance(event.get("event"), str):
        return None
    return dict(event)
