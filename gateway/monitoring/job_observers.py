"""Reports the life of jobs to several observers."""

from __future__ import annotations

from typing import Any

from gateway.jobs.job_entry import JobEntry, JobObserver


class JobObservers:
    """Calls each observer in turn."""

    def __init__(self, *observers: JobObserver) -> None:
        self._observers = observers

    def accepted(self, entry: JobEntry) -> None:
        """A job has been accepted."""
        for each in self._observers:
            each.accepted(entry)

    def dispatched(self, entry: JobEntry) -> None:
        """A worker is to run the job."""
        for each in self._observers:
            each.dispatched(entry)

    def ended(self, entry: JobEntry, record: dict[str, Any], step_s: float | None) -> None:
        """The job has its outcome."""
        for each in self._observers:
            each.ended(entry, record, step_s)
