"""The jobs that a worker has begun, on disk before their first step, for the next process.

A note a job; it holds no results. Once the log has the job's outcome, the note means nothing.

    gpu-0.in_flight.<uuid>.json   {"attempt": 1, "job": {"uuid": ..., "request": {...}}}

Protocol 3 had one note a worker, gpu-0.in_flight.json, which stayed after the job's end.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel, ValidationError

from gpu_worker.contract.job import Job
from gpu_worker.store import durable

log = logging.getLogger(__name__)

_NAME = re.compile(r"(gpu-\d+)\.in_flight(?:\.([0-9a-f-]{36}))?\.json")


class InFlightJob(BaseModel):
    """A job and how many times it has been started, this time included."""

    attempt: int
    job: Job


def writer_of(path: Path) -> str | None:
    """The worker that a file is a note of; None when it is no note."""
    match = _NAME.fullmatch(path.name)
    return match[1] if match else None


def note_paths(directory: Path) -> list[Path]:
    """Every note in the directory of the results, of any worker. Raises OSError."""
    return sorted(path for path in directory.iterdir() if writer_of(path) is not None)


def read_note(path: Path) -> InFlightJob | None:
    """A note, or None when it is gone; an unreadable one is reported and ignored."""
    try:
        return InFlightJob.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        log.warning("%s is not a note of a job in flight: %s", path, error)
        return None


class InFlight:
    """The notes of one worker: whoever holds that worker's lock writes them."""

    def __init__(self, directory: Path, writer: str) -> None:
        self._directory = directory
        self._writer = writer

    def write(self, note: InFlightJob) -> None:
        """Write a job's note, or replace it; it is on disk when this returns.

        Raises:
            OSError: it could not be written; the one before stands.
        """
        durable.replace(self._path(note.job.uuid), note.model_dump_json().encode())

    def remove(self, uuid: str) -> None:
        """Remove a job's note: the job has its outcome. Should a power cut bring the note back, the
        log still says so. Raises OSError."""
        self._path(uuid).unlink(missing_ok=True)

    def clear(self, uuids: Collection[str] | None = None) -> None:
        """Remove the notes of these jobs for good, or of all: no process shall run them again.

        Raises:
            OSError: the disk does not take it.
        """
        paths = self._paths() if uuids is None else [self._path(uuid) for uuid in uuids]
        for path in paths:
            path.unlink(missing_ok=True)
        if paths:
            durable.sync_directory(self._directory)

    def read(self) -> list[InFlightJob]:
        """All notes, by their jobs' sequence; that of protocol 3 gets its new name.

        Raises:
            OSError: they cannot be listed or read.
        """
        notes = []
        for path in self._paths():
            note = read_note(path)
            if note is not None:
                notes.append(note)
                path.replace(self._path(note.job.uuid))
        return sorted(notes, key=lambda note: note.job.sequence)

    def _path(self, uuid: str) -> Path:
        return self._directory / f"{self._writer}.in_flight.{uuid}.json"

    def _paths(self) -> list[Path]:
        paths = note_paths(self._directory) if self._directory.exists() else []
        return [path for path in paths if writer_of(path) == self._writer]
