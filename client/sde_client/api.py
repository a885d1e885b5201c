"""The client's one class. Here is what takes more than one request: submit once, wait, generate."""

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
    NoImage,
    SdeError,
    UnexpectedReply,
    UnknownJob,
)
from sde_client.http_api import HttpApi
from sde_client.polling import Poller
from sde_client.records import Job, Result
from sde_client.request_body import body, parse_digest, to_request, with_images

DEFAULT_URL = "http://127.0.0.1:9090"

PATIENCE_S = 60.0
"""A gateway restart takes seconds, its machine's reboot about a minute."""

OnProgress = Callable[[Job], None]


class Client(HttpApi):
    """A gateway at `url`. Every method raises GatewayUnreachable when nobody answers there.

    Args:
        url: `http://host:port`; the scheme may be left out.
        timeout_s: seconds for connecting and for each wait for bytes, not for a whole generation.
        patience_s: for how many seconds submit() and wait() bear a gateway that goes away in their
            middle.

    Raises:
        BadAddress: `url` is no http address.
    """

    def __init__(
        self, url: str = DEFAULT_URL, timeout_s: float = 30, patience_s: float = PATIENCE_S
    ) -> None:
        super().__init__(Connection(url, timeout_s))
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
        """Close the connection; the next call opens a new one."""
        self._connection.close()

    def submit(self, prompt: str, *, idempotency_key: str | None = None, **parameters: Any) -> str:
        """Ask for a generation and return its uuid at once.

        Taken exactly once, whatever breaks: when the connection fails after the request may have
        arrived, it is sent again with the same key, for up to `patience_s`.

        Args:
            idempotency_key: the server takes a key once, and answers with the same uuid ever after.
                1 to 255 printable ASCII characters; None for a new one.
            parameters: by diffusers' names, as docs/http-api.md lists them: negative_prompt,
                num_inference_steps, guidance_scale, width and height (pixels), seed ... A picture
                (image, mask_image, controlnets[].image, ip_adapter.image) is a path, or a file's
                bytes. None is not sent; the server judges all else.

        Raises:
            UnreadableFile: a picture cannot be read.
            GatewayUnreachable: at once when there is no connection at the first try, else after
                the patience; then the text names the key, so that it can be sent again.
            NotAvailable: no free place now; WorkerUnavailable: no worker can take it.
            StorageUnavailable: the server's disk takes nothing now.
            InvalidRequest: the server names the field and the value.
            Conflict: the key was used for another request.
        """
        return self._submit(body(prompt, parameters), idempotency_key, "/image/generate")

    def upscale(
        self, uuid: str, *, image_index: int = 0, idempotency_key: str | None = None, **how: Any
    ) -> str:
        """Ask for a stored picture made larger and return the new job's uuid at once.

        Args:
            image_index: which picture of the job, from 0.
            how: `scale`, above 1 to 4; `upscaler`, lanczos or a name of models()["upscalers"].

        Raises:
            NoImage: there is no such picture; Deleted: its result was deleted.
            else: as submit().
        """
        request = {"generation_uuid": uuid, "image_index": image_index, **how}
        return self._submit(request, idempotency_key, "/image/upscale")

    def _submit(self, request: dict[str, Any], idempotency_key: str | None, path: str) -> str:
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
                f"{error.reason}, and whether it took the job is not known: "
                f"sent again with the key {key} it is taken once"
            )
            raise GatewayUnreachable(self.url, reason, reached=True) from error

    def wait(
        self,
        uuid: str,
        timeout_s: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> list[Result]:
        """Wait until a generation has ended and return its pictures.

        Outlasts a gateway that restarts or is away for up to `patience_s`.

        Args:
            timeout_s: seconds at most, checked between two requests; None waits without limit.
            on_progress: called with the Job after each look at it, the last one included.

        Raises:
            GenerationFailed: it ended without a picture; GenerationCanceled: it was canceled.
            WaitTimeout: it has not ended yet, and goes on.
            UnknownJob: the server has neither a job nor a result of this uuid.
            Deleted: it had a result, which has been deleted.
        """
        poller = Poller(uuid, timeout_s, self._patience_s)
        try:
            last: Job | None = self._poll_once(uuid, poller, on_progress)
        except UnknownJob:
            # The job table of an older server forgets; its log of results does not.
            last = None
        found = poller.retry_while_away(lambda: list(self.results(uuid)))
        if not found and last is not None and last.state == "succeeded":
            self.job(uuid)  # raises Deleted when it went between the two
            raise UnexpectedReply(f"job {uuid} has succeeded, but the server sent no result of it")
        return _pictures(uuid, last, found)

    def generate(
        self, prompt: str, *, on_progress: OnProgress | None = None, **parameters: Any
    ) -> list[Result]:
        """submit() and wait() in one. Raises what these raise."""
        return self.wait(self.submit(prompt, **parameters), on_progress=on_progress)

    def to_request(self, result: Result) -> dict[str, Any]:
        """What submit() takes to ask for a result's picture again, its own pictures fetched.

        Raises:
            NoImage: the server has one of them no more.
        """

        def fetched(picture: Any) -> Any:
            digest = parse_digest(picture)
            return picture if digest is None else self.input(result.uuid, digest)

        return with_images(to_request(result), fetched)

    def verify(
        self, result: Result, *, keep: bool = False, on_progress: OnProgress | None = None
    ) -> Comparison:
        """Make a result's picture once more and compare the two.

        The repeat is a job of its own; its result is deleted unless `keep`. Raises what submit()
        and wait() raise.

        Raises:
            NoImage: the result has none.
            NotComparable: see `sde_client.comparison.compare`.
        """
        if result.png is None:
            raise NoImage(f"{result.uuid} has no picture to compare with")
        uuid = self.submit(**self.to_request(result))
        try:
            return comparison.compare(result, self.wait(uuid, on_progress=on_progress)[0])
        except KeyboardInterrupt:
            # Nobody waits for it any more.
            with contextlib.suppress(SdeError):
                self.cancel(uuid)
            raise
        finally:
            if not keep:
                with contextlib.suppress(SdeError):
                    self.delete(uuid)

    def save(self, result: Result, path: str | Path) -> Path:
        """Write the picture to `path`, replacing a file there; return where it lies.

        Raises:
            NotSaved: no picture in the result, a directory, no such folder, or the disk's reason.
        """
        return image_file.write(result.png, Path(path))

    def _poll_once(self, uuid: str, poller: Poller, on_progress: OnProgress | None) -> Job:
        while True:
            job = poller.retry_while_away(lambda: self.job(uuid, poller.hold_s()))
            if on_progress is not None:
                on_progress(job)
            if job.ended:
                return job
            # The estimate moves by itself: that is no change.
            poller.after(replace(job, eta_s=None), job.eta_s)


def _pictures(uuid: str, last: Job | None, found: list[Result]) -> list[Result]:
    pictures = [result for result in found if result.png is not None]
    if pictures:
        return pictures
    if not found and last is None:
        raise UnknownJob(uuid)
    errors = [error for result in found for error in result.errors]
    if not errors and last is not None:
        errors = last.errors or [f"it ended as {last.state}, with no reason given"]
    states = {result.state for result in found} | {last.state if last else None}
    raise (GenerationCanceled if "canceled" in states else GenerationFailed)(uuid, errors)
