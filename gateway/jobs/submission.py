"""The one way in: room on the disk, a place in the table, the journal, and only then the uuid."""

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
    """Accepts generations exactly once. Thread-safe."""

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
        """Accept a request; the uuid of its job, which is on disk.

        Args:
            key: the client's name for this submission: the same key gives the same uuid, for good.
            images: those that the request names by digest; they are on disk before the job is.
            source: where its `image` is from, when that is a stored image.

        Raises:
            Unsupported: no worker can do it.
            IdempotencyKeyReused: the key stands for another request.
            StorageUnavailable, NoWorker, QueueFull: it is not accepted, and will not run.
        """
        if key is None:
            return self._accept(request, None, images or {}, source)
        named, wanted = _digest(key), _digest(request.model_dump_json())
        with self._keyed:
            made = self._made(named)
            if made is None:
                return self._accept(request, f"{named}:{wanted}", images or {}, source)
            uuid, asked = made
            if asked != wanted:
                raise IdempotencyKeyReused(
                    f"Idempotency-Key: {key!r} was sent before with another request, "
                    f"which became {uuid}"
                )
            return uuid

    def _made(self, key: str) -> tuple[str, str] | None:
        """The uuid and the request's digest that a key's digest stands for."""
        # The journal first: a job that ends between the two looks is in the log by then.
        made = self._journal.submissions.get(key)
        if made is not None:
            return made
        found = self._index.find_submission(key)
        return None if found is None else (found[0], found[1].partition(":")[2])

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
