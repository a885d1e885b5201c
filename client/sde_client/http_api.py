"""Has one method for each route of the gateway. A method sends one request and waits for no job."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from sde_client import records
from sde_client.connection import Connection
from sde_client.errors import (
    InvalidRequest,
    NoImage,
    SdeError,
    UnexpectedReply,
    UnknownJob,
    UnknownKey,
    UnknownModel,
)
from sde_client.http_errors import NotFound
from sde_client.png_text import PNG_SIGNATURE
from sde_client.records import Job, Result, Storage, Worker

MAX_PAGE = 1000
"""The largest number of results or jobs that the server sends in one reply."""


_AT_ONCE = {"trash": "false"}


class HttpApi:
    """The routes of the gateway at the other end of `connection`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def url(self) -> str:
        """Return the gateway's address, with its scheme."""
        return self._connection.url

    @property
    def is_local(self) -> bool:
        """Return whether the gateway's address is one of this machine's loopback."""
        return self._connection.is_local

    @property
    def has_key(self) -> bool:
        """Return whether requests carry a key."""
        return self._connection.has_key

    # ---- jobs ---------------------------------------------------------------------------------

    def _submit_once(self, body: dict[str, Any], key: str, path: str = "/image/generate") -> str:
        with self._require_route(path):
            reply = self._connection.post(path, body, key)
        uuid = reply.get("generation_uuid") if isinstance(reply, dict) else None
        if not isinstance(uuid, str):
            raise UnexpectedReply(f"{self.url} accepted the request but sent no 'generation_uuid'")
        return uuid

    def job(self, uuid: str, wait_s: float | None = None) -> Job:
        """Return the state and progress of a job.

        Args:
            wait_s: the server replies after the job's next change, or after this many seconds (at
                most 30). It replies at once if too many clients are waiting.

        Raises:
            UnknownJob: the server does not know the job.
            Deleted: its result has been deleted.
        """
        query = {"wait": f"{wait_s:.3f}"} if wait_s else None
        with _raise_on_404(UnknownJob(uuid)):
            return records.job(self._connection.get(_job_path(uuid), query, hold_s=wait_s or 0))

    def jobs(self, limit: int = 100) -> list[Job]:
        """Return the queued, running and ended jobs since the server's start, the newest first.

        Args:
            limit: the largest number of jobs, from 1 to 1000.
        """
        return [records.job(raw) for raw in self._list("/image/jobs", {"limit": str(limit)})]

    def cancel(self, uuid: str) -> Job:
        """Cancel a job. A queued job ends at once, a running one before its next step.

        Returns:
            The job, which is canceled, or still running with `cancel_requested`.

        Raises:
            UnknownJob: the server does not know the job.
            Deleted: its result has been deleted.
            Conflict: the job has succeeded or failed already.
            StorageUnavailable: the server's disk cannot store the request; the job keeps running.
        """
        with _raise_on_404(UnknownJob(uuid)):
            return records.job(self._connection.delete(_job_path(uuid)))

    # ---- results ------------------------------------------------------------------------------

    def results(
        self,
        uuid: str | None = None,
        limit: int | None = None,
        before: str | None = None,
        data: bool = True,
    ) -> Iterator[Result]:
        """Return an iterator of all results, the oldest first, or of the results of one job.

        With `limit` or `before` the newest result is first. The iterator reads the reply as it
        goes, so that one image is in memory at a time. Errors are raised during the iteration.

        A job has one result for each image. These have the same uuid and follow each other.

        Args:
            uuid: the job; an unknown or unfinished job has no results.
            limit: the number of results. The results of the last job are complete.
            before: a uuid; only results of older jobs are returned.
            data: False leaves the images out. The server then reads no image, which is fast.

        Raises:
            InvalidRequest: `limit` is not positive, or `before` is not the uuid of a result.
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
            with self._require_route("/image/generate"):
                page, query = self._connection.stream("/image/generate", query)
            for raw in page:
                left -= 1
                yield records.result(raw)
            if not query or left <= 0:
                return

    def image(self, uuid: str, number: int = 1) -> bytes:
        """Return the PNG of a job's image; `number` starts at 1.

        Raises:
            NoImage: the server has no such image; the message says why.
            Deleted: the result has been deleted.
        """
        name = quote(uuid, safe="") + (f"-{number}" if number != 1 else "")
        try:
            png = self._connection.get_bytes(f"/image/files/{name}.png")
        except NotFound as error:
            raise NoImage(str(error) or f"{uuid!r} has no image {number}") from None
        if not png.startswith(PNG_SIGNATURE):
            raise UnexpectedReply(f"{self.url}/image/files/{name}.png is not a PNG file")
        return png

    def input(self, uuid: str, sha256: str) -> bytes:
        """Return an input image of a job.

        Args:
            sha256: the digest in the job's record, without the prefix `sha256:`.

        Raises:
            NoImage: the server has no such image; the message says why.
        """
        path = f"{_job_path(uuid)}/inputs/{quote(sha256, safe='')}"
        try:
            return self._connection.get_bytes(path)
        except NotFound as error:
            raise NoImage(str(error) or f"{uuid!r} has no input image {sha256}") from None

    def search(
        self,
        words: str = "",
        *,
        limit: int = 100,
        offset: int = 0,
        **filters: str,
    ) -> tuple[int, list[dict[str, Any]]]:
        """Return how many images match, and a page of them as the server describes them.

        Args:
            words: words of the prompt; all of them must occur, and the last may be a beginning.
            limit: the number of images, from 1 to 1000.
            filters: further conditions of GET /image/results, such as `model` or `star="true"`.
        """
        query = {"limit": str(limit), "offset": str(offset), **filters}
        if words:
            query["q"] = words
        with self._require_route("/image/results"):
            reply = self._connection.get("/image/results", query)
        results = reply.get("results") if isinstance(reply, dict) else None
        total = reply.get("total") if isinstance(reply, dict) else None
        if not isinstance(results, list) or not isinstance(total, int):
            raise UnexpectedReply(f"{self.url}/image/results sent no 'results' and 'total'")
        return total, [each for each in results if isinstance(each, dict)]

    def restore(self, *images: str) -> int:
        """Move images, `UUID` or `UUID-N`, out of the trash, and return how many.

        Raises:
            StorageUnavailable: the server's disk cannot store the change.
        """
        with self._require_route("/image/restore"):
            reply = self._connection.post("/image/restore", {"images": list(images)})
        changed = reply.get("changed") if isinstance(reply, dict) else None
        if not isinstance(changed, int):
            raise UnexpectedReply(f"{self.url}/image/restore sent no 'changed'")
        return changed

    def delete(self, uuid: str, *, trash: bool = True) -> None:
        """Move a job's results and images into the trash.

        Args:
            trash: False deletes them at once and for good. A service without a trash and an older
                one always do so.

        Raises:
            UnknownJob: the server does not know the job.
            Deleted: the results have been deleted already.
            Conflict: the job has not ended.
            StorageUnavailable: the server's disk cannot store the deletion; nothing is deleted.
        """
        with _raise_on_404(UnknownJob(uuid)):
            query = {"generation_uuid": uuid}
            try:
                self._connection.delete("/image/generate", query | _AT_ONCE if not trash else query)
            except InvalidRequest:
                if trash:
                    raise
                self._connection.delete("/image/generate", query)

    # ---- the server ---------------------------------------------------------------------------

    def is_available(self) -> bool:
        """Return whether the server accepts a job now."""
        with self._require_route("/server/status"):
            reply = self._connection.get("/server/status")
        available = reply.get("is_available") if isinstance(reply, dict) else None
        if not isinstance(available, bool):
            raise UnexpectedReply(f"{self.url}/server/status sent no 'is_available'")
        return available

    def workers(self) -> list[Worker]:
        """Return the workers of the gateway."""
        return [records.worker(raw) for raw in self._list("/server/workers")]

    def models(self) -> dict[str, Any]:
        """Return the models, schedulers and adapters, as docs/http-api.md describes them.

        Raises:
            WorkerUnavailable: no worker has sent its capabilities yet.
        """
        with self._require_route("/server/models"):
            reply = self._connection.get("/server/models")
        if not isinstance(reply, dict):
            raise UnexpectedReply(f"{self.url}/server/models did not send an object")
        return reply

    def load(self, model: str) -> None:
        """Start loading a model in a worker. The method does not wait for the end of loading.

        Raises:
            UnknownModel: the server has no such model.
            NotAvailable: the worker is busy.
            WorkerUnavailable: no worker is available.
        """
        self._switch(model, "load")

    def unload(self, model: str) -> None:
        """Remove a model from memory. The method raises the errors of load()."""
        self._switch(model, "unload")

    def _switch(self, model: str, action: str) -> None:
        try:
            self._connection.post(f"/server/models/{quote(model, safe='')}/{action}", {})
        except NotFound as error:
            raise UnknownModel(str(error) or f"there is no model {model!r}") from None

    def keys(self) -> list[dict[str, Any]]:
        """Return the names, scopes and times of the service's keys. It needs the scope admin."""
        return [key for key in self._list("/server/keys") if isinstance(key, dict)]

    def add_key(self, name: str, scopes: Sequence[str] = ("generate",)) -> str:
        """Make a key and return it; nobody can read it again. It needs the scope admin.

        Args:
            scopes: `generate`, and `admin` for a key that manages models, keys and all jobs.

        Raises:
            InvalidRequest: the name or a scope is invalid.
            Conflict: a key has this name already.
        """
        with self._require_route("/server/keys"):
            reply = self._connection.post("/server/keys", {"name": name, "scopes": list(scopes)})
        key = reply.get("key") if isinstance(reply, dict) else None
        if not isinstance(key, str):
            raise UnexpectedReply(f"{self.url} sent no 'key'")
        return key

    def revoke_key(self, name: str) -> None:
        """Revoke a key of the service. It needs the scope admin.

        Raises:
            UnknownKey: the service has no such key, or it is one of SDE_KEYS.
        """
        try:
            self._connection.delete(f"/server/keys/{quote(name, safe='')}")
        except NotFound as error:
            raise UnknownKey(str(error) or f"there is no key {name!r}") from None

    def storage(self) -> Storage:
        """Return the state of the server's result log and disk."""
        with self._require_route("/server/storage"):
            return records.storage(self._connection.get("/server/storage"))

    # -------------------------------------------------------------------------------------------

    def _list(self, path: str, query: dict[str, str] | None = None) -> list[object]:
        with self._require_route(path):
            reply = self._connection.get(path, query)
        if not isinstance(reply, list):
            raise UnexpectedReply(f"{self.url}{path} did not send a list")
        return reply

    @contextmanager
    def _require_route(self, path: str) -> Iterator[None]:
        not_ours = f"{self.url} has no {path}: another server listens there, or an older version"
        with _raise_on_404(UnexpectedReply(not_ours)):
            yield


@contextmanager
def _raise_on_404(error: SdeError) -> Iterator[None]:
    """Raise `error` where the server answers 404."""
    try:
        yield
    except NotFound:
        raise error from None


def _job_path(uuid: str) -> str:
    return f"/image/jobs/{quote(uuid, safe='')}"
