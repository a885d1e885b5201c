"""The Client class, with the operations that take several requests: submit, wait, generate."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

from sde_client import comparison, image_file
from sde_client.comparison import Comparison
from sde_client.connection import Connection
from sde_client.errors import (
    GatewayUnreachable,
    GenerationCanceled,
    GenerationFailed,
    InvalidRequest,
    NoImage,
    SdeError,
    UnexpectedReply,
    UnknownJob,
)
from sde_client.http_api import HttpApi
from sde_client.polling import Poller
from sde_client.records import Job, Result
from sde_client.request_body import body, fields, parse_digest, to_request, with_images

DEFAULT_URL = "http://127.0.0.1:9090"

PATIENCE_S = 60.0
"""A gateway restarts within seconds; a reboot of its machine takes about a minute."""

OnProgress = Callable[[Job], None]


class Client(HttpApi):
    """A client of the gateway at `url`.

    Every method raises GatewayUnreachable when the gateway cannot be reached.

    Args:
        url: `http://host:port`; the scheme is optional. It may end with `#key=KEY`.
        timeout_s: the timeout for connecting and for each read, not for a whole generation.
        patience_s: for how many seconds submit() and wait() retry while the gateway is away.
        key: the service's key, which precedes the one in `url`; None sends the latter or none.

    Raises:
        BadAddress: `url` is not an HTTP address, or no HTTP header can carry the key.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        timeout_s: float = 30,
        patience_s: float = PATIENCE_S,
        *,
        key: str | None = None,
    ) -> None:
        super().__init__(Connection(url, timeout_s, key))
        self._patience_s = patience_s

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. The next call opens a new one."""
        self._connection.close()

    def submit(
        self,
        prompt: str,
        *,
        idempotency_key: str | None = None,
        queue: bool = True,
        **parameters: Any,
    ) -> str:
        """Submit a generation and return its uuid at once.

        The server creates exactly one job. If the connection fails after the request may have
        arrived, submit() sends it again with the same key, for up to `patience_s`.

        Args:
            idempotency_key: the server creates one job for a key, and returns its uuid from then
                on. 1 to 255 printable ASCII characters; None generates a key.
            queue: the job may wait in the queue; otherwise it must be able to start at once.
            parameters: the request fields of docs/http-api.md, such as negative_prompt, width
                (pixels) or seed. Each `image` and `mask_image`, also in a nested object, is a path
                or a file's bytes. None leaves a field out.

        Raises:
            UnreadableFile: an input image cannot be read.
            GatewayUnreachable: the first attempt found no connection, or the patience ran out.
                In the second case the message names the key.
            NotAvailable: the queue is full, or no worker is idle and the job may not wait.
            WorkerUnavailable: no worker can accept a job.
            StorageUnavailable: the server's disk cannot store anything now.
            InvalidRequest: the server rejected a field; the message names it and its value.
            Conflict: the key belongs to another request.
        """
        return self._submit(body(prompt, parameters), idempotency_key, "/image/generate", queue)

    def upscale(
        self,
        uuid: str,
        *,
        image_index: int = 0,
        idempotency_key: str | None = None,
        queue: bool = True,
        **options: Any,
    ) -> str:
        """Submit the upscaling of a stored image and return the new job's uuid at once.

        It also raises the errors of submit().

        Args:
            image_index: the index of the image in the job, from 0.
            queue: as for submit().
            options: `scale`, above 1 and at most 4; `upscaler`, lanczos or a name of
                models()["upscalers"].

        Raises:
            NoImage: the server has no such image.
            Deleted: the result has been deleted.
        """
        request = fields({"generation_uuid": uuid, "image_index": image_index, **options})
        return self._submit(request, idempotency_key, "/image/upscale", queue)

    def _submit(
        self, request: dict[str, Any], idempotency_key: str | None, path: str, queue: bool
    ) -> str:
        if queue:
            try:
                return self._send({**request, "queue": True}, idempotency_key, path)
            except InvalidRequest as error:
                if not _is_unknown("queue", error):
                    raise  # otherwise the server is older, and its operator decides who waits
        return self._send(request, idempotency_key, path)

    def _send(self, request: dict[str, Any], idempotency_key: str | None, path: str) -> str:
        key = str(uuid4()) if idempotency_key is None else idempotency_key
        try:
            return self._submit_once(request, key, path)
        except GatewayUnreachable as error:
            if not error.reached:
                raise
        poller = Poller(key, None, self._patience_s)
        try:
            return poller.retry_while_away(lambda: self._submit_once(request, key, path))
        except GatewayUnreachable as error:
            reason = (
                f"{error.reason}; it is unknown whether the job was accepted, "
                f"so submit it again with the key {key} to create no second job"
            )
            raise GatewayUnreachable(self.url, reason, reached=True) from error

    def wait(
        self,
        uuid: str,
        timeout_s: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> list[Result]:
        """Wait until a generation has ended and return its results with images.

        wait() retries while the gateway restarts or is away, for up to `patience_s`.

        Args:
            timeout_s: the limit in seconds, checked between two requests; None sets no limit.
            on_progress: called with the Job after each poll, including the last one.

        Raises:
            GenerationFailed: the job ended without an image.
            GenerationCanceled: the job was canceled.
            WaitTimeout: the job has not ended yet; it keeps running.
            UnknownJob: the server has neither a job nor a result with this uuid.
            Deleted: the result has been deleted.
        """
        poller = Poller(uuid, timeout_s, self._patience_s)
        try:
            last: Job | None = self._poll_once(uuid, poller, on_progress)
        except UnknownJob:
            # An older server drops ended jobs from its job table, but keeps their results.
            last = None
        results = poller.retry_while_away(lambda: list(self.results(uuid)))
        if not results and last is not None and last.state == "succeeded":
            self.job(uuid)  # raises Deleted if it was deleted between the two requests
            raise UnexpectedReply(f"job {uuid} has succeeded, but the server sent no result for it")
        return _with_image(uuid, last, results)

    def generate(
        self, prompt: str, *, on_progress: OnProgress | None = None, **parameters: Any
    ) -> list[Result]:
        """Submit a generation and wait for it. Raises the errors of submit() and wait()."""
        return self.wait(self.submit(prompt, **parameters), on_progress=on_progress)

    def to_request(self, result: Result) -> dict[str, Any]:
        """Return submit() arguments that generate a result again, with its input images fetched.

        Raises:
            NoImage: the server no longer has one of the input images.
        """

        def fetch(image: Any) -> Any:
            digest = parse_digest(image)
            return image if digest is None else self.input(result.uuid, digest)

        return with_images(to_request(result), fetch)

    def verify(
        self, result: Result, *, keep: bool = False, on_progress: OnProgress | None = None
    ) -> Comparison:
        """Generate a result again and compare both images.

        The repetition is a new job; its result is deleted unless `keep` is set. The method also
        raises the errors of submit() and wait().

        Raises:
            NoImage: the result has no image.
            NotComparable: see `sde_client.comparison.compare`.
        """
        if result.png is None:
            raise NoImage(f"result {result.uuid} has no image to compare with")
        uuid = self.submit(**self.to_request(result))
        try:
            return comparison.compare(result, self.wait(uuid, on_progress=on_progress)[0])
        except KeyboardInterrupt:
            # The caller no longer waits for the new job.
            with contextlib.suppress(SdeError):
                self.cancel(uuid)
            raise
        finally:
            if not keep:
                with contextlib.suppress(SdeError):
                    self.delete(uuid, trash=False)

    def save(self, result: Result, path: str | Path) -> Path:
        """Write the image to `path`, replacing an existing file, and return the path.

        Raises:
            NotSaved: the result has no image, or the file cannot be written.
        """
        return image_file.write(result.png, Path(path))

    def _poll_once(self, uuid: str, poller: Poller, on_progress: OnProgress | None) -> Job:
        while True:
            job = poller.retry_while_away(lambda: self.job(uuid, poller.hold_s()))
            if on_progress is not None:
                on_progress(job)
            if job.ended:
                return job
            # The estimate changes all the time; that is not a change of the job.
            poller.after(replace(job, eta_s=None), job.eta_s)


def _is_unknown(field: str, error: InvalidRequest) -> bool:
    return bool(error.errors) and all(each.get("field") == field for each in error.errors)


def _with_image(uuid: str, last: Job | None, results: list[Result]) -> list[Result]:
    """Return the results that have an image, or raise the error that explains why none has."""
    images = [result for result in results if result.png is not None]
    if images:
        return images
    if not results and last is None:
        raise UnknownJob(uuid)
    errors = [error for result in results for error in result.errors]
    if not errors and last is not None:
        errors = last.errors or [f"the job ended as {last.state} without a reason"]
    states = {result.state for result in results} | {last.state if last else None}
    raise (GenerationCanceled if "canceled" in states else GenerationFailed)(uuid, errors)
