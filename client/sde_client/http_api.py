"""One method a route of the gateway: one request each, its reply typed. Waits for no job."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from sde_client import records
from sde_client.connection import Connection
from sde_client.errors import NoImage, SdeError, UnexpectedReply, UnknownJob, UnknownModel
from sde_client.http_errors import NotFound
from sde_client.records import Job, Result, Storage, Worker

MAX_PAGE = 1000
"""Results or jobs that the server sends in one reply at most."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""https://www.w3.org/TR/png-3/#5PNG-file-signature"""


class HttpApi:
    """What the Client can ask of the gateway that `connection` leads to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def url(self) -> str:
        """The gateway's address, with scheme."""
        return self._connection.url

    # ---- jobs ---------------------------------------------------------------------------------

    def _submit_once(self, body: dict[str, Any], key: str, path: str = "/image/generate") -> str:
        with self._ours(path):
            reply = self._connection.post(path, body, key)
        uuid = reply.get("generation_uuid") if isinstance(reply, dict) else None
        if not isinstance(uuid, str):
            raise UnexpectedReply(f"{self.url} took the request but sent no 'generation_uuid'")
        return uuid

    def job(self, uuid: str, wait_s: float | None = None) -> Job:
        """How far a generation is.

        Args:
            wait_s: let the server answer only after the job's next change, or so many seconds (30
                at most). It answers at once when too many wait already.

        Raises:
            UnknownJob: the server does not know it; Deleted: its result has been deleted.
        """
        query = {"wait": f"{wait_s:.3f}"} if wait_s else None
        with _no_404_but(UnknownJob(uuid)):
            return records.job(self._connection.get(_job_path(uuid), query, hold_s=wait_s or 0))

    def jobs(self, limit: int = 100) -> list[Job]:
        """The jobs that wait and run, and those that ended since the server's start.

        The newest first; `limit` is from 1 to 1000.
        """
        return [records.job(raw) for raw in self._list("/image/jobs", {"limit": str(limit)})]

    def cancel(self, uuid: str) -> Job:
        """End a job: a waiting one at once, a running one before its next step.

        Returns:
            The job, which is canceled, or still running with `cancel_requested`.

        Raises:
            UnknownJob: there is none; Deleted: its result has been deleted.
            Conflict: it has succeeded or failed already.
            StorageUnavailable: the server's disk does not take it; the job goes on.
        """
        with _no_404_but(UnknownJob(uuid)):
            return records.job(self._connection.delete(_job_path(uuid)))

    # ---- results ------------------------------------------------------------------------------

    def results(
        self,
        uuid: str | None = None,
        limit: int | None = None,
        before: str | None = None,
        data: bool = True,
    ) -> Iterator[Result]:
        """Every result, oldest first; or those of one uuid: none while it is pending or unknown.

        With `limit` or `before` the newest first. An iterator that reads as it goes: one picture is
        in memory at a time. Errors are raised while iterating.

        A job may have several, one a picture, which have one uuid and stand side by side.

        Args:
            limit: so many, and what is left of the last one's job.
            before: only results of jobs older than that of this uuid.
            data: False for all but the picture, which the server then does not read: fast.

        Raises:
            InvalidRequest: `limit` is not positive, or `before` is no result's uuid.
        """
        query = {} if data else {"data": "false"}
        if uuid is not None:
            query["generation_uuid"] = uuid
        if before is not None:
            query["before"] = before
        left = math.inf if limit is None else limit
        in_pages = uuid is None and (limit is not None or before is not None)
        while True:
            if in_pages:
                query["limit"] = str(min(MAX_PAGE, left))
            with self._ours("/image/generate"):
                found, query = self._connection.stream("/image/generate", query)
            for raw in found:
                left -= 1
                yield records.result(raw)
            if not query or left <= 0:
                return

    def picture(self, uuid: str, number: int = 1) -> bytes:
        """The PNG file of a job's `number`-th picture, from 1.

        Raises:
            NoImage: the server has none, and says why; Deleted: it had one.
        """
        name = quote(uuid, safe="") + (f"-{number}" if number != 1 else "")
        try:
            png = self._connection.get_bytes(f"/image/files/{name}.png")
        except NotFound as error:
            raise NoImage(str(error) or f"there is no picture {number} of {uuid!r}") from None
        if not png.startswith(PNG_SIGNATURE):
            raise UnexpectedReply(f"{self.url}/image/files/{name}.png is not a PNG file")
        return png

    def input(self, uuid: str, sha256: str) -> bytes:
        """A picture that came with a job's request, as its record names it without `sha256:`.

        Raises:
            NoImage: the server has none, and says why.
        """
        path = f"{_job_path(uuid)}/inputs/{quote(sha256, safe='')}"
        try:
            return self._connection.get_bytes(path)
        except NotFound as error:
            raise NoImage(str(error) or f"no picture {sha256} came with {uuid!r}") from None

    def delete(self, uuid: str) -> None:
        """Delete a job's results, the pictures with them, for good.

        Raises:
            UnknownJob: there is none; Deleted: it has been deleted before.
            Conflict: the job has not ended.
            StorageUnavailable: the server's disk does not take it; nothing is deleted.
        """
        with _no_404_but(UnknownJob(uuid)):
            self._connection.delete("/image/generate", {"generation_uuid": uuid})

    # ---- the server ---------------------------------------------------------------------------

    def is_available(self) -> bool:
        """Whether a job would be taken right now."""
        with self._ours("/server/status"):
            reply = self._connection.get("/server/status")
        available = reply.get("is_available") if isinstance(reply, dict) else None
        if not isinstance(available, bool):
            raise UnexpectedReply(f"{self.url}/server/status did not say 'is_available'")
        return available

    def workers(self) -> list[Worker]:
        """The GPU processes behind the gateway."""
        return [records.worker(raw) for raw in self._list("/server/workers")]

    def models(self) -> dict[str, Any]:
        """What can be asked for: models, their schedulers, adapters, as docs/http-api.md says.

        Raises:
            WorkerUnavailable: no worker has said yet.
        """
        with self._ours("/server/models"):
            reply = self._connection.get("/server/models")
        if not isinstance(reply, dict):
            raise UnexpectedReply(f"{self.url}/server/models did not send an object")
        return reply

    def load(self, model: str) -> None:
        """Have a worker load a model; it has begun when this returns.

        Raises:
            UnknownModel: there is none of this name.
            NotAvailable: the worker is busy; WorkerUnavailable: there is none.
        """
        self._switch(model, "load")

    def unload(self, model: str) -> None:
        """Have a model leave the memory. Raises as load() does."""
        self._switch(model, "unload")

    def _switch(self, model: str, verb: str) -> None:
        try:
            self._connection.post(f"/server/models/{quote(model, safe='')}/{verb}", {})
        except NotFound as error:
            raise UnknownModel(str(error) or f"there is no model {model!r}") from None

    def storage(self) -> Storage:
        """The server's log of results and its disk."""
        with self._ours("/server/storage"):
            return records.storage(self._connection.get("/server/storage"))

    # -------------------------------------------------------------------------------------------

    def _list(self, path: str, query: dict[str, str] | None = None) -> list[object]:
        with self._ours(path):
            reply = self._connection.get(path, query)
        if not isinstance(reply, list):
            raise UnexpectedReply(f"{self.url}{path} did not send a list")
        return reply

    @contextmanager
    def _ours(self, path: str) -> Iterator[None]:
        not_ours = f"{self.url} has no {path}: another server listens there, or an older version"
        with _no_404_but(UnexpectedReply(not_ours)):
            yield


@contextmanager
def _no_404_but(error: SdeError) -> Iterator[None]:
    """What a 404 means here."""
    try:
        yield
    except NotFound:
        raise error from None


def _job_path(uuid: str) -> str:
    return f"/image/jobs/{quote(uuid, safe='')}"
