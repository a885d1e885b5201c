"""GET /image/jobs/{uuid}/preview: what a running job looks like so far, as its worker drew it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import falcon

from gateway.errors import NoImage
from gateway.http.params import parse_uuid
from gateway.routes.jobs import JobLookup


class Previews:
    """The workers' files; they come, change and go while one looks."""

    def __init__(self, directory: Path, workers: Iterable[str]) -> None:
        self._directory = directory
        self._workers = list(workers)

    def read(self, uuid: str) -> bytes | None:
        """The newest JPEG of a job; None when there is none. `uuid` is canonical."""
        for path in self._paths(uuid):
            try:
                return path.read_bytes()
            except OSError:
                continue
        return None

    def version(self, uuid: str) -> int | None:
        """Another number when there is another preview; None when there is none."""
        for path in self._paths(uuid):
            try:
                return path.stat().st_mtime_ns
            except OSError:
                continue
        return None

    def _paths(self, uuid: str) -> list[Path]:
        return [self._directory / f"{worker}.{uuid}.jpg" for worker in self._workers]


class PreviewResource:
    """A preview is of this moment: nobody keeps it."""

    def __init__(self, previews: Previews, whereabouts: JobLookup) -> None:
        self._previews = previews
        self._whereabouts = whereabouts

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """The JPEG of a running job; 404 when there is none."""
        uuid = parse_uuid(uuid, "uuid")
        state = self._whereabouts.view(uuid)["state"]
        content = self._previews.read(uuid) if state == "running" else None
        if content is None:
            raise NoImage(f"the job {uuid} is {state} and has no preview")
        resp.content_type = "image/jpeg"
        resp.set_header("Cache-Control", "no-store")
        resp.data = content
