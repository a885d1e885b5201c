"""Stores the jobs that a worker has started, before their first step, for the next process.

Each job has one note, without results. A note has no meaning once the log has the job's outcome.

    gpu-0.in_flight.<uuid>.json   {"v": 1, "attempt": 1, "job": {"uuid": ..., "request": {...}}}

In protocol 3 a worker had one note, gpu-0.in_flight.json, which stayed after the end of the job.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from gpu_worker.contract.job import Job
from gpu_worker.contract.validation_errors import field_name
from gpu_worker.store import durable
from gpu_worker.store.durable import StoreTooNew

log = logging.getLogger(__name__)

_NAME = re.compile(r"(gpu-\d+)\.in_flight(?:\.([0-9a-f-]{36}))?\.json")


VERSION = 1
"""The version of a note. The notes of protocol 4 and before lack it."""


class InFlightJob(BaseModel):
    """A job, and the number of its starts so far."""

    model_config = ConfigDict(hide_input_in_errors=True)

    v: int = VERSION
    attempt: int
    job: Job


def writer_of(path: Path) -> str | None:
    """Return the worker whose note the file is; None for other files."""
    match = _NAME.fullmatch(path.name)
    return match[1] if match else None


def note_paths(directory: Path) -> list[Path]:
    """Return every note in the results folder, of any worker. Raises OSError."""
    return sorted(path for path in directory.iterdir() if writer_of(path) is not None)


def read_note(path: Path) -> InFlightJob | None:
    """Return a note; None if the file is missing or invalid. An invalid one is logged.

    Raises:
        StoreTooNew: a newer version wrote the note.
        OSError: the note cannot be read. A link is not followed.
    """
    try:
        note = InFlightJob.model_validate_json(durable.read_plain(path))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        where = field_name(details[0]["loc"])
        if all(each["type"] == "extra_forbidden" for each in details):
            raise StoreTooNew(path, f"has {where}, which this version does not know") from None
        log.warning("%s is not a note of a job in flight: %s is invalid", path, where)
        return None
    if note.v > VERSION:
        reason = f"has the version {note.v}, and this version reads version {VERSION}"
        raise StoreTooNew(path, reason)
    return note


def refuse_newer(directory: Path, writer: str) -> None:
    """Raises StoreTooNew if a newer version wrote a note of this worker, or OSError."""
    for path in note_paths(directory):
        if writer_of(path) == writer:
            read_note(path)


class InFlight:
    """The notes of one worker. The process that holds the lock of the worker writes them."""

    def __init__(self, directory: Path, writer: str) -> None:
        self._directory = directory
        self._writer = writer

    def write(self, note: InFlightJob) -> None:
        """Write or replace the note of a job, and flush it to the disk.

        Raises:
            OSError: the note could not be written; the previous one is unchanged.
        """
        durable.replace(self._path(note.job.uuid), note.model_dump_json().encode())

    def remove(self, uuid: str) -> None:
        """Remove the note of an ended job. Raises OSError.

        A power failure may restore it, but the log has the outcome.
        """
        self._path(uuid).unlink(missing_ok=True)

    def clear(self, uuids: Collection[str] | None = None) -> None:
        """Remove the notes of these jobs, or all, and flush the removal to the disk.

        Raises:
            OSError: the disk refuses a change.
        """
        paths = self._paths() if uuids is None else [self._path(uuid) for uuid in uuids]
        for path in paths:
            path.unlink(missing_ok=True)
        if paths:
            durable.sync_directory(self._directory)

    def read(self) -> list[InFlightJob]:
        """Return all notes in the order of their jobs. A note of protocol 3 is renamed.

        Raises:
            StoreTooNew: a newer version wrote one of them; none has been renamed.
            OSError: the notes cannot be listed or read.
        """
        by_path = {path: read_note(path) for path in self._paths()}
        notes = []
        for path, note in by_path.items():
            if note is not None:
                notes.append(note)
                path.replace(self._path(note.job.uuid))
        return sorted(notes, key=lambda note: note.job.sequence)

    def _path(self, uuid: str) -> Path:
        return self._directory / f"{self._writer}.in_flight.{uuid}.json"

    def _paths(self) -> list[Path]:
        paths = note_paths(self._directory) if self._directory.exists() else []
        return [path for path in paths if writer_of(path) == self._writer]
