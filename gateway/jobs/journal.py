"""Keeps the broker's log: jobs accepted, dispatched, canceled, and results deleted.

Its one writer is the gateway. An accepted job is on disk before its uuid leaves the gateway. The
outcome of a job is in the result log. docs/results-format.md defines the format.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway.store.journal_event import Event, decode, encode
from gpu_worker.contract.job import Job
from gpu_worker.contract.validation_errors import field_name
from gpu_worker.store import durable
from gpu_worker.store.durable import AppendFile, DamagedLine, NewerLine, StoreTooNew

log = logging.getLogger(__name__)

COMPACT_BYTES = 1 << 20
"""The journal is compacted above this size when it has doubled since the last time."""


def read_job(content: dict[str, Any]) -> Job:
    """Return the job of an event.

    Raises:
        NewerLine: the job has fields of a newer version.
        DamagedLine: this version cannot run the job.
    """
    try:
        return Job.model_validate(content)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        names = [field_name(each["loc"]) for each in details]
        if all(each["type"] == "extra_forbidden" for each in details):
            raise NewerLine(
                f"has a job with {names[0]}, which this version does not know"
            ) from None
        raise DamagedLine(f"has a job that cannot be run: {names[0]} is invalid") from None


@dataclass
class PendingJob:
    """A job without an outcome, as the journal has it."""

    job: Job
    worker: str | None = None
    cancel: bool = False


class Journal:
    """The journal and what follows from it. Thread-safe.

    Every method that writes raises OSError when the disk refuses it; then nothing has changed.

    Args:
        write_tombstones: writes deletions (uuid -> submission) to the file of tombstones, so that a
            compaction may drop them. It raises OSError or sqlite3.Error. Without it they stay here.

    `submissions` maps a key's digest to uuid and request digest, for jobs that are not in the
    result log. `deleted` are the deletions without a tombstone.
    """

    def __init__(
        self,
        path: Path,
        compact_bytes: int = COMPACT_BYTES,
        write_tombstones: Callable[[dict[str, str | None]], None] | None = None,
    ) -> None:
        self._write_tombstones = write_tombstones
        self._file = AppendFile(path)
        self._lock = threading.Lock()
        self._compact_bytes = compact_bytes
        self._compacted_to = 0
        self.pending: dict[str, PendingJob] = {}
        self.submissions: dict[str, tuple[str, str]] = {}
        self.deleted: set[str] = set()
        self.last_sequence = 0
        self._unusable_lines: list[bytes] = []

    @property
    def damaged_lines(self) -> int:
        """Return how many lines cannot be used. A compaction copies them unchanged."""
        return len(self._unusable_lines)

    def open(self) -> None:
        """Read the journal. A torn tail is cut and a damaged line skipped; both are logged.

        A disk that refuses writes is not an error yet.

        Raises:
            StoreTooNew: a newer version wrote the journal.
            OSError: the journal exists but cannot be read.
        """
        self.read()
        try:
            self._open_file()
        except OSError as error:
            log.error("the journal cannot be written: %s", error)

    def read(self) -> None:
        """Read the journal, and write nothing. Raises StoreTooNew, OSError."""
        if self._file.path.exists() or self._file.path.is_symlink():
            self._read()

    def accept(self, job: Job) -> None:
        """Record an accepted job. It will have an outcome from now on."""
        self._append({"event": "accepted", "job": job.model_dump(mode="json")})

    def dispatch(self, uuid: str, worker: str) -> None:
        """Record the worker of a job. No other worker may run it from now on."""
        self._append({"event": "dispatched", "uuid": uuid, "worker": worker})

    def cancel(self, uuid: str) -> None:
        """Record a cancellation, so that it survives a restart."""
        self._append({"event": "cancel", "uuid": uuid})

    def delete(self, submissions: dict[str, str | None]) -> None:
        """Record deleted results: uuid -> submission, which stays known."""
        self._append(
            *(
                {"event": "deleted", "uuid": uuid, "submission": submission}
                for uuid, submission in submissions.items()
            )
        )

    def end(self, uuid: str) -> None:
        """Forget a job whose outcome and submission are in the result log. Nothing is written."""
        with self._lock:
            accepted = self.pending.pop(uuid, None)
            if accepted is not None and accepted.job.submission:
                self.submissions.pop(accepted.job.submission.partition(":")[0], None)

    # ---- under the lock -----------------------------------------------------------------------

    def _append(self, *events: Event) -> None:
        with self._lock:
            if not self._file.is_open:
                self._open_file()
            self._file.append(b"".join(map(encode, events)))
            for event in events:
                self._apply(event)
            if self._file.committed > max(self._compact_bytes, 2 * self._compacted_to):
                self._compact()

    def _open_file(self) -> None:
        cut = self._file.open()
        if cut:
            log.warning("a torn line of %d bytes was cut from the journal", cut)

    def _read(self) -> None:
        with durable.open_plain(self._file.path) as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    self._apply(decode(line))
                except NewerLine as error:
                    raise StoreTooNew(self._file.path, f"{error} (line {number})") from None
                except DamagedLine as error:
                    self._unusable_lines.append(line)
                    log.warning("line %d of the journal is skipped: it %s", number, error)

    def _apply(self, event: Event) -> None:
        uuid = event.get("uuid", "")
        match event["event"]:
            case "accepted":
                self._accepted(event)
            case "dispatched" if uuid in self.pending:
                self.pending[uuid].worker = event["worker"]
            case "cancel" if uuid in self.pending:
                self.pending[uuid].cancel = True
            case "deleted":
                self.deleted.add(uuid)
                self.pending.pop(uuid, None)
                self._remember(uuid, event.get("submission"))
            case "sequence":
                self.last_sequence = max(self.last_sequence, event["sequence"])

    def _accepted(self, event: Event) -> None:
        job = read_job(event["job"])
        self.pending[job.uuid] = PendingJob(job)
        self.last_sequence = max(self.last_sequence, job.sequence)
        self._remember(job.uuid, job.submission)

    def _remember(self, uuid: str, submission: str | None) -> None:
        if submission:
            key, _, request = submission.partition(":")
            self.submissions[key] = (uuid, request)

    def _compact(self) -> None:
        """Replace the journal by its live events."""
        if self._write_tombstones is not None and self.deleted:
            self._move_deleted(self._write_tombstones)
        events = (encode(event) for event in self._live_events())
        content = b"".join((*self._unusable_lines, *events))
        # The next append opens the journal again, whether the replacement succeeds or not.
        self._file.close()
        try:
            durable.replace(self._file.path, content)
        except OSError as error:
            log.warning("the journal could not be compacted: %s", error)
        self._compacted_to = len(content)

    def _move_deleted(self, write_tombstones: Callable[[dict[str, str | None]], None]) -> None:
        deleted = self._deleted()
        try:
            write_tombstones(deleted)
        except (OSError, sqlite3.Error) as error:
            log.warning("deletions stay in the journal for now: %s", error)
            return
        # Only now, so that a reader finds them in one of the two places.
        self.deleted = set()
        for submission in deleted.values():
            self.submissions.pop((submission or "").partition(":")[0], None)

    def _deleted(self) -> dict[str, str | None]:
        submissions = {uuid: f"{key}:{req}" for key, (uuid, req) in self.submissions.items()}
        return {uuid: submissions.get(uuid) for uuid in self.deleted}

    def _live_events(self) -> Iterator[dict[str, Any]]:
        yield {"event": "sequence", "sequence": self.last_sequence}
        for uuid, submission in self._deleted().items():
            yield {"event": "deleted", "uuid": uuid, "submission": submission}
        for uuid, accepted in self.pending.items():
            yield {"event": "accepted", "job": accepted.job.model_dump(mode="json")}
            if accepted.worker is not None:
                yield {"event": "dispatched", "uuid": uuid, "worker": accepted.worker}
            if accepted.cancel:
                yield {"event": "cancel", "uuid": uuid}
