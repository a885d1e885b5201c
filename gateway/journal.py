"""The broker's own log: what was accepted, dispatched, canceled, deleted. One writer, the gateway.

An accepted job is on disk before its uuid leaves the gateway. How a job ended is not here: the
result log says that. The format: docs/results-format.md.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway import journal_line
from gateway.journal_line import Event
from gpu_worker import durable
from gpu_worker.durable import AppendFile
from gpu_worker.generation import Job

log = logging.getLogger(__name__)

COMPACT_BYTES = 4 << 20
"""The journal is rewritten when it has grown past this and has doubled since the last time."""


@dataclass
class Accepted:
    """A job without an outcome, as the journal knows it."""

    job: Job
    worker: str | None = None
    cancel: bool = False


@dataclass(frozen=True)
class Submission:
    """What an Idempotency-Key stands for, for good."""

    uuid: str
    fingerprint: str


class Journal:
    """Thread-safe. Every method that writes raises OSError when the disk does not take it, and then
    nothing has changed."""

    def __init__(self, path: Path, compact_bytes: int = COMPACT_BYTES) -> None:
        self._file = AppendFile(path)
        self._lock = threading.Lock()
        self._compact_bytes = compact_bytes
        self._compacted_to = 0
        self._is_open = False
        self.pending: dict[str, Accepted] = {}
        self.submissions: dict[str, Submission] = {}
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

    def accept(self, job: Job, key: str | None = None, fingerprint: str = "") -> None:
        """A job has been accepted; from now on it will have an outcome."""
        event: Event = {"event": "accepted", "job": job.model_dump(mode="json")}
        if key is not None:
            event |= {"key": key, "fingerprint": fingerprint}
        self._append(event)

    def dispatch(self, uuid: str, worker: str) -> None:
        """From now on it is that worker's: nobody else may begin it."""
        self._append({"event": "dispatched", "uuid": uuid, "worker": worker})

    def cancel(self, uuid: str) -> None:
        """Its end is wanted, also after a restart."""
        self._append({"event": "cancel", "uuid": uuid})

    def delete(self, *uuids: str) -> None:
        """Results that are gone for good."""
        self._append(*({"event": "deleted", "uuid": uuid} for uuid in uuids))

    def end(self, uuid: str) -> None:
        """It has its outcome in the result log; nothing is written."""
        with self._lock:
            self.pending.pop(uuid, None)

    # ---- under the lock -----------------------------------------------------------------------

    def _append(self, *events: Event) -> None:
        with self._lock:
            if not self._is_open:
                self._open_file()
            self._file.append(b"".join(map(journal_line.encode, events)))
            for event in events:
                self._apply(event)
            if self._file.committed > max(self._compact_bytes, 2 * self._compacted_to):
                self._compact()

    def _open_file(self) -> None:
        cut = self._file.open()
        self._is_open = True
        if cut:
            log.warning("the journal: cut a torn line of %d bytes", cut)

    def _read(self) -> Iterator[Event]:
        with open(self._file.path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    yield journal_line.decode(line)
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
            case "submission":
                self.submissions[event["key"]] = Submission(uuid, event["fingerprint"])
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
        self.pending[job.uuid] = Accepted(job)
        self.last_sequence = max(self.last_sequence, job.sequence)
        if "key" in event:
            self.submissions[event["key"]] = Submission(job.uuid, event["fingerprint"])

    def _compact(self) -> None:
        """Write what still matters into a new file and put it in the old one's place."""
        try:
            durable.replace(
                self._file.path, b"".join(journal_line.encode(event) for event in self._kept())
            )
        except OSError as error:
            log.warning("the journal could not be compacted: %s", error)
            return
        self._file.close()
        self._is_open = False
        self._open_file()
        self._compacted_to = self._file.committed

    def _kept(self) -> Iterator[dict[str, Any]]:
        yield {"event": "sequence", "sequence": self.last_sequence}
        for key, made in self.submissions.items():
            yield {
                "event": "submission",
                "key": key,
                "uuid": made.uuid,
                "fingerprint": made.fingerprint,
            }
        for uuid in self.deleted:
            yield {"event": "deleted", "uuid": uuid}
        for uuid, accepted in self.pending.items():
            yield {"event": "accepted", "job": accepted.job.model_dump(mode="json")}
            if accepted.worker is not None:
                yield {"event": "dispatched", "uuid": uuid, "worker": accepted.worker}
            if accepted.cancel:
                yield {"event": "cancel", "uuid": uuid}
