"""Accepts a job: checks the disk, reserves a place, writes the journal, returns the uuid."""

from __future__ import annotations

import hashlib
import threading

from gateway.admission.capabilities import WorkerCapabilities
from gateway.errors import IdempotencyKeyReused, StorageUnavailable
from gateway.jobs.broker import Broker
from gateway.jobs.journal import Journal
from gateway.store.disk_space import DiskSpace
from gateway.store.input_store import InputFiles, InputStore
from gateway.store.result_index import ResultIndex
from gpu_worker.contract.job import Source
from gpu_worker.contract.request import GenerationRequest


class JobSubmission:
    """Accepts each request once, even when it is sent again with its key. Thread-safe."""

    def __init__(
        self,
        broker: Broker,
        journal: Journal,
        index: ResultIndex,
        storage: DiskSpace,
        inputs: InputStore,
        capabilities: WorkerCapabilities,
    ) -> None:
        self._broker = broker
        self._journal = journal
        self._index = index
        self._storage = storage
        self._inputs = inputs
        self._capabilities = capabilities
        self._keyed = threading.Lock()

    def submit(
        self,
        request: GenerationRequest,
        key: str | None = None,
        images: InputFiles | None = None,
        source: Source | None = None,
    ) -> str:
        """Accept a request and return the uuid of its job, which is on disk.

        Args:
            key: the client's Idempotency-Key; the same key always gives the same uuid.
            images: those that the request names by digest; they are stored before the job.
            source: the job and index of `image`, when that is a stored image.

        Raises:
            Unsupported: no worker supports a field of the request.
            IdempotencyKeyReused: the key was sent with another request.
            StorageUnavailable, NoWorker, QueueFull: the job is not accepted and will not run.
        """
        if key is None:
            return self._accept(request, None, images or {}, source)
        key_digest, request_digest = _digest(key), _digest(request.model_dump_json())
        with self._keyed:
            earlier = self._earlier_submission(key_digest)
            if earlier is None:
                return self._accept(request, f"{key_digest}:{request_digest}", images or {}, source)
            uuid, earlier_digest = earlier
            if earlier_digest != request_digest:
                raise IdempotencyKeyReused(
                    f"Idempotency-Key: {key!r} was sent before with another request, "
                    f"which became {uuid}"
                )
            return uuid

    def _earlier_submission(self, key: str) -> tuple[str, str] | None:
        """Return the uuid and the request's digest of a key's digest."""
        # The journal comes first: a job that ends between the two looks is in the log by then.
        earlier = self._journal.submissions.get(key)
        if earlier is not None:
            return earlier
        row = self._index.find_submission(key)
        return None if row is None else (row[0], row[1].partition(":")[2])

    def _accept(
        self,
        request: GenerationRequest,
        submission: str | None,
        images: InputFiles,
        source: Source | None,
    ) -> str:
        self._capabilities.check(request)
        self._storage.check()
        job = self._broker.reserve(request, submission).model_copy(update={"source": source})
        try:
            self._inputs.keep(job.uuid, images)
            self._journal.accept(job)
        except BaseException as error:
            self._broker.give_up()
            if images:
                self._inputs.remove(job.uuid)
            if isinstance(error, OSError):
                raise StorageUnavailable.refusing("the job", error) from error
            raise
        self._broker.enqueue(job)
        return job.uuid


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
