"""The one way in: room on the disk, a place in the table, the journal, and only then the uuid."""

from __future__ import annotations

import hashlib
import threading

from gateway.broker import Broker
from gateway.errors import KeyReused, StorageUnavailable
from gateway.journal import Journal
from gateway.storage import Storage
from gpu_worker.generation import GenerationRequest


class Intake:
    """Accepts generations exactly once. Thread-safe."""

    def __init__(self, broker: Broker, journal: Journal, storage: Storage) -> None:
        self._broker = broker
        self._journal = journal
        self._storage = storage
        self._keyed = threading.Lock()

    def submit(self, request: GenerationRequest, key: str | None = None) -> str:
        """Accept a request; the uuid of its job, which is on disk.

        Args:
            key: the client's name for this submission: the same key gives the same uuid, for good.

        Raises:
            KeyReused: the key stands for another request.
            StorageUnavailable, NoWorker, QueueFull: it is not accepted, and will not run.
        """
        if key is None:
            return self._accept(request, None, "")
        fingerprint = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
        with self._keyed:
            made = self._journal.submissions.get(key)
            if made is None:
                return self._accept(request, key, fingerprint)
            if made.fingerprint != fingerprint:
                raise KeyReused(
                    f"Idempotency-Key: {key!r} was sent before with another request, "
                    f"which became {made.uuid}"
                )
            return made.uuid

    def _accept(self, request: GenerationRequest, key: str | None, fingerprint: str) -> str:
        self._storage.check()
        job = self._broker.reserve(request)
        try:
            self._journal.accept(job, key, fingerprint)
        except OSError as error:
            self._broker.give_up()
            raise StorageUnavailable(
                f"the disk does not take the job: {error.strerror or error}"
            ) from error
        except BaseException:
            self._broker.give_up()
            raise
        self._broker.enqueue(job)
        return job.uuid
