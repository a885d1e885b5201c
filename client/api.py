"""The client's one class: submit a generation, watch, fetch and save it. HTTP is all it knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from client import picture_file, records
from client.connection import Connection, NotFound
from client.errors import GenerationFailed, UnexpectedReply, UnknownJob
from client.records import Job, Result, Worker
from client.waiting import Watch

DEFAULT_URL = "http://127.0.0.1:9090"

PATIENCE_S = 60.0
"""A gateway restart takes seconds, its machine's reboot about a minute."""

OnProgress = Callable[[Job], None]


class Client:
    """A gateway at `url`. Every method raises GatewayUnreachable when nobody answers there.

    Args:
        url: `http://host:port`; the scheme may be left out.
        timeout_s: seconds for connecting and for each wait for bytes, not for a whole generation.
        patience_s: for how many seconds wait() bears a gateway that is away.

    Raises:
        BadAddress: `url` is no http address.
    """

    def __init__(
        self, url: str = DEFAULT_URL, timeout_s: float = 30, patience_s: float = PATIENCE_S
    ) -> None:
        self._connection = Connection(url, timeout_s)
        self._patience_s = patience_s

    @property
    def url(self) -> str:
        """The gateway's address, with scheme."""
        return self._connection.url

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

    def submit(self, prompt: str, **parameters: Any) -> str:
        """Ask for a generation and return its uuid at once.

        Args:
            parameters: by diffusers' names: negative_prompt, num_inference_steps, guidance_scale,
                width and height (pixels), seed. None is not sent; the server judges all else.

        Raises:
            NotAvailable: no free place now; WorkerUnavailable: no worker can take it.
            InvalidRequest: the server names the field and the value.
        """
        given = {name: value for name, value in parameters.items() if value is not None}
        reply = self._post("/image/generate", {"prompt": prompt, **given})
        uuid = reply.get("generation_uuid") if isinstance(reply, dict) else None
        if not isinstance(uuid, str):
            raise UnexpectedReply(f"{self.url} took the request but sent no 'generation_uuid'")
        return uuid

    def job(self, uuid: str) -> Job:
        """How far a generation is. Raises UnknownJob."""
        try:
            return records.job(self._connection.get(f"/image/jobs/{quote(uuid, safe='')}"))
        except NotFound:
            raise UnknownJob(uuid) from None

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
            GenerationFailed: it ended without a picture.
            WaitTimeout: it has not ended yet, and goes on.
            UnknownJob: the server has neither a job nor a result of this uuid.
        """
        watch = Watch(uuid, timeout_s, self._patience_s)
        try:
            last: Job | None = self._last_look(uuid, watch, on_progress)
        except UnknownJob:
            # The job table forgets; the log of results does not.
            last = None
        found = watch.patiently(lambda: list(self.results(uuid)))
        return _pictures(uuid, last, found)

    def generate(
        self, prompt: str, *, on_progress: OnProgress | None = None, **parameters: Any
    ) -> list[Result]:
        """submit() and wait() in one. Raises what these raise."""
        return self.wait(self.submit(prompt, **parameters), on_progress=on_progress)

    def results(self, uuid: str | None = None) -> Iterator[Result]:
        """Every result, or those of one uuid: none while it is pending or unknown.

        An iterator that reads as it goes: one picture is in memory at a time. Errors are raised
        while iterating.
        """
        query = {} if uuid is None else {"generation_uuid": uuid}
        try:
            for raw in self._connection.stream("/image/generate", query):
                yield records.result(raw)
        except NotFound:
            raise self._not_ours("/image/generate") from None

    def is_available(self) -> bool:
        """Whether a job would be taken right now."""
        reply = self._get("/server/status")
        available = reply.get("is_available") if isinstance(reply, dict) else None
        if not isinstance(available, bool):
            raise UnexpectedReply(f"{self.url}/server/status did not say 'is_available'")
        return available

    def workers(self) -> list[Worker]:
        """The GPU processes behind the gateway."""
        reply = self._get("/server/workers")
        if not isinstance(reply, list):
            raise UnexpectedReply(f"{self.url}/server/workers did not send a list")
        return [records.worker(raw) for raw in reply]

    def save(self, result: Result, path: str | Path) -> Path:
        """Write the picture to `path`, replacing a file there; return where it lies.

        Raises:
            NotSaved: no picture in the result, a directory, no such folder, or the disk's reason.
        """
        return picture_file.write(result.png, Path(path))

    def _last_look(self, uuid: str, watch: Watch, on_progress: OnProgress | None) -> Job:
        while True:
            job = watch.patiently(lambda: self.job(uuid))
            if on_progress is not None:
                on_progress(job)
            if job.ended:
                return job
            watch.pause(job.eta_s)

    def _get(self, path: str) -> object:
        try:
            return self._connection.get(path)
        except NotFound:
            raise self._not_ours(path) from None

    def _post(self, path: str, body: dict[str, Any]) -> object:
        try:
            return self._connection.post(path, body)
        except NotFound:
            raise self._not_ours(path) from None

    def _not_ours(self, path: str) -> UnexpectedReply:
        return UnexpectedReply(f"{self.url} has no {path}: another server listens there")


def _pictures(uuid: str, last: Job | None, found: list[Result]) -> list[Result]:
    pictures = [result for result in found if result.png is not None]
    if pictures:
        return pictures
    errors = [error for result in found for error in result.errors]
    if not errors and last is not None:
        errors = last.errors or [f"it ended as {last.state}, with no reason given"]
    if not found and last is None:
        raise UnknownJob(uuid)
    if not found and last is not None and last.state == "succeeded":
        raise UnexpectedReply(f"job {uuid} has succeeded, but the server sent no result of it")
    raise GenerationFailed(uuid, errors)
