"""The broker's own log: what was accepted, dispatched, canceled, deleted. One writer, the gateway.

An accepted job is on disk before its uuid leaves the gateway. How a job ended is not here: the
result log says that. The format: docs/results-format.md.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from gpu_worker.contract.job import Job
from gpu_worker.store import durable
from gpu_worker.store.durable import AppendFile, DamagedLine

VERSION = 1

Event = dict[str, Any]

_FIELDS: dict[str, dict[str, Any]] = {
    "accepted": {"job": dict},
    "dispatched": {"uuid": str, "worker": str},
    "cancel": {"uuid": str},
    "deleted": {"uuid": str},
    "sequence": {"sequence": int},
}


def encode(event: Event) -> bytes:
    """One line with its newline."""
    return durable.with_checksum(orjson.dumps({"v": VERSION, **event})[:-1])


def decode(line: bytes) -> Event:
    """Raises DamagedLine on what is no event of this version."""
    durable.verify_checksum(line)
    event: Event = orjson.loads(line)
    fields = _FIELDS.get(event.get("event", ""))
    if event.get("v") != VERSION or fields is None:
        raise DamagedLine(f"is no event of version {VERSION}")
    if any(not isinstance(event.get(name), kind) for name, kind in fields.items()):
        raise DamagedLine(f"lacks what {event['event']} says")
    return event


log = logging.getLogger(__name__)

COMPACT_BYTES = 1 << 20
"""The journal is rewritten when it has grown past this and has doubled since the last time."""


@dataclass
class PendingJob:
    """A job without an outcome, as the journal knows it."""

    job: Job
    worker: str | None = None
    cancel: bool = False


class Journal:
    """Thread-safe. Every method that writes raises OSError when the disk does not take it, and then
    nothing has changed.

    Args:
        bury: keeps deletions (uuid -> submission) for good elsewhere, so that a compaction may
            leave them out; they are on disk when it returns. Raises OSError, sqlite3.Error. Without
            it they stay here.

    `submissions` are those of jobs that are not in the result log (yet, or any more):
    the key's digest -> uuid and the request's digest. `deleted` are those not buried yet.
    """

    def __init__(
        self,
        path: Path,
        compact_bytes: int = COMPACT_BYTES,
        bury: Callable[[dict[str, str | None]], None] | None = None,
    ) -> None:
        self._bury = bury
        self._file = AppendFile(path)
        self._lock = threading.Lock()
        self._compact_bytes = compact_bytes
        self._compacted_to = 0
        self.pending: dict[str, PendingJob] = {}
        self.submissions: dict[str, tuple[str, str]] = {}
        self.deleted: set[str] = set()
        self.last_sequence = 0
        self.damaged_lines = 0

    def open(self) -> None:
        """Read what is there. A torn tail is cut, a damaged line in the middle is skipped; both are
        reported. A disk that does not take writes is no error yet.

        Raises:
            OSError: the journal is there but cannot be read.
        """
        if self._file.path.exists():
            for event in self._read():
                self._apply(event)
        try:
            self._open_file()
        except OSError as error:
            log.error("the journal cannot be written: %s", error)

    def accept(self, job: Job) -> None:
        """A job has been accepted; from now on it will have an outcome."""
        self._append({"event": "accepted", "job": job.model_dump(mode="json")})

    def dispatch(self, uuid: str, worker: str) -> None:
        """From now on it is that worker's: nobody else may begin it."""
        self._append({"event": "dispatched", "uuid": uuid, "worker": worker})

    def cancel(self, uuid: str) -> None:
        """Its end is wanted, also after a restart."""
        self._append({"event": "cancel", "uuid": uuid})

    def delete(self, submissions: dict[str, str | None]) -> None:
        """Results that are gone for good: uuid -> submission, which stays remembered."""
        self._append(
            *(
                {"event": "deleted", "uuid": uuid, "submission": submission}
                for uuid, submission in submissions.items()
            )
        )

    def end(self, uuid: str) -> None:
        """It has its outcome in the result log, its submission too; nothing is written."""
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
            log.warning("the journal: cut a torn line of %d bytes", cut)

    def _read(self) -> Iterator[Event]:
        with open(self._file.path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    yield decode(line)
                except durable.DamagedLine as error:
                    self.damaged_lines += 1
                    log.warning("the journal: skipped line %d: it %s", number, error)

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
        try:
            job = Job.model_validate(event["job"])
        except ValidationError as error:
            # The checksum is right: written by another version, whose fields were others.
            self.damaged_lines += 1
            log.error("the journal: a job that this version cannot run: %s", error)
            return
        self.pending[job.uuid] = PendingJob(job)
        self.last_sequence = max(self.last_sequence, job.sequence)
        self._remember(job.uuid, job.submission)

    def _remember(self, uuid: str, submission: str | None) -> None:
        if submission:
            key, _, request = submission.partition(":")
            self.submissions[key] = (uuid, request)

    def _compact(self) -> None:
        """Write what still matters into a new file and put it in the old one's place."""
        if self._bury is not None and self.deleted:
            self._bury_deleted(self._bury)
        content = b"".join(encode(event) for event in self._kept())
        # Whatever becomes of the replacement, the next append opens what then is the journal.
        self._file.close()
        try:
            durable.replace(self._file.path, content)
        except OSError as error:
            log.warning("the journal could not be compacted: %s", error)
        self._compacted_to = len(content)

    def _bury_deleted(self, bury: Callable[[dict[str, str | None]], None]) -> None:
        deleted = self._deleted()
        try:
            bury(deleted)
        except (OSError, sqlite3.Error) as error:
            log.warning("deletions stay in the journal for now: %s", error)
            return
        # Only now: who asks meanwhile finds them here or there.
        self.deleted = set()
        for submission in deleted.values():
            self.submissions.pop((submission or "").partition(":")[0], None)

    def _deleted(self) -> dict[str, str | None]:
        submissions = {uuid: f"{key}:{req}" for key, (uuid, req) in self.submissions.items()}
        return {uuid: submissions.get(uuid) for uuid in self.deleted}

    def _kept(self) -> Iterator[dict[str, Any]]:
        yield {"event": "sequence", "sequence": self.last_sequence}
        for uuid, submission in self._deleted().items():
            yield {"event": "deleted", "uuid": uuid, "submission": submission}
        for uuid, accepted in self.pending.items():
            yield {"event": "accepted", "job": accepted.job.model_dump(mode="json")}
            if accepted.worker is not None:
                yield {"event": "dispatched", "uuid": uuid, "worker": accepted.worker}
            if accepted.cancel:
                yield {"event": "cancel", "uuid": uuid}
