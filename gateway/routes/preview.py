"""GET /image/jobs/{uuid}/preview: the newest preview of a running job."""

from __future__ import annotations

import falcon

from gateway.errors import NoImage
from gateway.http.params import parse_uuid
from gateway.jobs.job_entry import JobState
from gateway.jobs.lookup import JobLookup
from gateway.store.preview_reader import PreviewReader


class PreviewResource:
    """Serves previews. A preview is outdated at the next step, so no client may cache it."""

    def __init__(self, previews: PreviewReader, lookup: JobLookup) -> None:
        self._previews = previews
        self._lookup = lookup

    def on_get(self, req: falcon.Request, resp: falcon.Response, uuid: str) -> None:
        """Answer with the JPEG of a running job, or 404 when there is none."""
        uuid = parse_uuid(uuid, "uuid")
        state = self._lookup.view(uuid).state
        content = self._previews.read(uuid) if state is JobState.RUNNING else None
        if content is None:
            raise NoImage(f"the job {uuid} is {state} and has no preview")
        resp.content_type = "image/jpeg"
        resp.set_header("Cache-Control", "no-store")
        resp.data = content
