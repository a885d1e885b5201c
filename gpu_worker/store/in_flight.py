"""The job that a worker has begun, on disk before its first step, for who comes after a death. A
leaf.

Holds one job, no results. Once the log has the job's uuid the note means nothing.

    {"attempt": 1, "job": {"uuid": ..., "created_time": ..., "request": {...}}}
"""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import BaseModel, ValidationError

from gpu_worker.contract.job import Job
from gpu_worker.store import durable

log = logging.getLogger(__name__)


class InFlightJob(BaseModel):
    """A job and how many times it has been started, this time included."""

    attempt: int
    job: Job


class InFlight:
    """The note file of one worker: whoever holds that worker's lock writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, begun: InFlightJob) -> None:
        """Replace the note; it is on disk when this returns.

        Raises:
            OSError: the note could not be written; the one before stands.
        """
        durable.replace(self._path, begun.model_dump_json().encode())

    def clear(self) -> None:
        """Remove the note: its job has its outcome. Raises OSError."""
        self._path.unlink(missing_ok=True)
        durable.sync_directory(self._path.parent)

    def read(self) -> InFlightJob | None:
        """The last note, or None when there is none; an unreadable one is reported and ignored."""
        try:
            return InFlightJob.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            log.warning("%s is not a note of a job in flight: %s", self._path, error)
            return None
