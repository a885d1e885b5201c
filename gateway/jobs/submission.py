"""Accepts a job: checks the disk, reserves a place, writes the journal, returns the uuid."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from gateway.admission.capabilities import WorkerCapabilities
from gateway.admission.submission_options import DEFAULT, SubmissionOptions
from gateway.errors import IdempotencyKeyReused, StorageUnavailable
from gateway.jobs.broker import Broker
from gateway.jobs.job_entry import UNKNOWN_CALLER, Caller
from gateway.jobs.journal import Journal
from gateway.store.disk_space import DiskSpace
from gateway.store.input_store import InputFiles, InputStore
from gateway.store.result_index import ResultIndex
from gpu_worker.contract import request_digest
from gpu_worker.contract.job import MAX_WARNING_CHARS, MAX_WARNINGS, Source
from gpu_worker.contract.request import GenerationRequest


class JobSubmission:
    """Accepts each request once, even when it is sent again with its key. Thread-safe.

    Args:
        always_waits: a job may wait in the queue although its client does not ask for it.
    """

    def __init__(
        self,
        broker: Broker,
        journal: Journal,
        index: ResultIndex,
        storage: DiskSpace,
        inputs: InputStore,
        capabilities: WorkerCapabilities,
        *,
        always_waits: bool = True,
    ) -> None:
        self._broker = broker
        self._journal = journal
        self._index = index
        self._storage = storage
        self._inputs = inputs
        self._capabilities = capabilities
        self._always_waits = always_waits
        self._keyed = threading.Lock()

    def submit(
        self,
        request: GenerationRequest,
        key: str | None = None,
        images: InputFiles | None = None,
        source: Source | None = None,
        caller: Caller = UNKNOWN_CALLER,
        options: SubmissionOptions = DEFAULT,
        partial_images: int = 0,
        warnings: Iterable[str] = (),
    ) -> str:
        """Accept a request and return the uuid of its job, which is on disk.

        Args:
            key: the client's Idempotency-Key; the same key always gives the same uuid.
            images: those that the request names by digest; they are stored before the job.
            source: the job and index of `image`, when that is a stored image.
            caller: where the request came from; each key has Idempotency-Keys of its own.
            options: whether the job may wait, and its labels. A repeated key gets the first job,
                with the labels that it was accepted with.
            partial_images: how often each image is shown while it is denoised, 0 to 3.
            warnings: sentences of the record about what the request asks for and does not get.

        Raises:
            Unsupported: no worker supports a field of the request.
            IdempotencyKeyReused: the key was sent with another request.
            StorageUnavailable, NoWorker, QueueFull: the job is not accepted and will not run.
        """
        shortened = [text[:MAX_WARNING_CHARS] for text in warnings][:MAX_WARNINGS]
        about: dict[str, Any] = {
            "source": source,
            "partial_images": partial_images,
            "warnings": shortened,
        }
        if key is None:
            return self._accept(request, None, images or {}, about, caller, options)
        own_key = key if caller.owner is None else f"{caller.owner}\n{key}"
        key_digest = request_digest.digest(own_key.encode())
        with self._keyed:
            earlier = self._earlier_submission(key_digest)
            if earlier is None:
                submission = f"{key_digest}:{request_digest.digest_of(request)}"
                return self._accept(request, submission, images or {}, about, caller, options)
            uuid, earlier_digest = earlier
            if earlier_digest not in request_digest.valid_digests(request):
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
        about: dict[str, Any],
        caller: Caller,
        options: SubmissionOptions,
    ) -> str:
        self._capabilities.check(request)
        self._storage.check(sum(map(len, images.values())))
        may_wait = options.queue or self._always_waits
        reserved = self._broker.reserve(request, submission, caller.owner, may_wait=may_wait)
        labels = {"batch_id": options.batch_id, "client_name": options.client_name}
        job = reserved.model_copy(update={**about, **labels})
        try:
            self._inputs.keep(job.uuid, images)
            self._journal.accept(job)
        except BaseException as error:
            self._broker.give_up(job)
            if images:
                self._inputs.remove(job.uuid)
            if isinstance(error, OSError):
                raise StorageUnavailable.refusing("the job", error) from error
            raise
        self._broker.enqueue(job, caller)
        return job.uuid
