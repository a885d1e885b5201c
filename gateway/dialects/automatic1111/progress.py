"""GET /sdapi/v1/progress and its like, and POST /interrupt and /skip, which end a job."""

from __future__ import annotations

import binascii
import contextlib
from datetime import datetime
from typing import Any

import falcon
import orjson

from gateway.dialects.automatic1111.door import Door, DoorResource
from gateway.dialects.automatic1111.translation.request_models import InternalProgress, parse
from gateway.errors import RequestRefused
from gateway.http.access_control import principal
from gateway.http.json_body import json_body
from gateway.jobs.job_entry import JobEntry, JobState, JobView

LEAST = 0.01
"""The progress of a job before its first step, as theirs: 0 says that nothing runs."""

_MAX_BODY_BYTES = 64 << 10

Live = list[tuple[JobEntry, JobView]]


def share(view: JobView) -> float:
    """Return how much of a job is done, from LEAST to 1."""
    done_share = view.step / view.steps if view.steps else 0.0
    return round(min(1.0, max(LEAST, done_share)), 4)


def current(live: Live) -> JobView | None:
    """Return the oldest job that runs, else the oldest one; None when nothing runs or waits."""
    views = [view for _, view in live]
    running = [view for view in views if view.state is JobState.RUNNING]
    return next(iter(running or views), None)


def preview(door: Door, view: JobView | None) -> str | None:
    """Return base64 of the newest preview of a job, a JPEG."""
    content = None if view is None else door.services.previews.read(view.uuid)
    return None if content is None else binascii.b2a_base64(content, newline=False).decode()


def text_of(view: JobView) -> str | None:
    """Return a sentence about a job that waits."""
    if view.state is not JobState.QUEUED:
        return None
    return f"In queue: {view.position or 0} jobs before it"


class ProgressResource(DoorResource):
    """GET /sdapi/v1/progress. The jobs of other doors do not count."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the oldest job; progress and job_count are 0 when there is none."""
        live = self._door.jobs()
        view = current(live)
        skips = (req.get_param("skip_current_image") or "").lower() in ("true", "1", "yes", "on")
        resp.data = orjson.dumps(
            {
                "progress": 0 if view is None else share(view),
                "eta_relative": 0.0 if view is None else view.eta_s or 0.0,
                "state": _state(live, view),
                "current_image": None if skips else preview(self._door, view),
                "textinfo": None if view is None else text_of(view),
                "current_task": None if view is None else view.uuid,
            }
        )


def _state(live: Live, view: JobView | None) -> dict[str, Any]:
    stamp = "0"
    if view is not None:
        stamp = datetime.fromisoformat(view.created_time).strftime("%Y%m%d%H%M%S")
    is_ending = view is not None and view.cancel_requested
    return {
        "skipped": False,
        "interrupted": is_ending,
        "stopping_generation": is_ending,
        "job": "" if view is None else view.uuid,
        "job_count": len(live),
        "job_timestamp": stamp,
        "job_no": 0,
        "sampling_step": 0 if view is None else view.step,
        "sampling_steps": 0 if view is None else view.steps,
    }


class InternalProgressResource(DoorResource):
    """POST /internal/progress: the progress of the job of a client's own `force_task_id`."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the job; one that is unknown is neither active nor completed."""
        body = parse(InternalProgress, json_body(req, _MAX_BODY_BYTES))
        uuid, view = self._door.uuid_of_task(body.id_task), None
        if uuid is not None:
            with contextlib.suppress(RequestRefused):  # its result was deleted
                view = self._door.services.lookup.view(uuid)
        is_active = view is not None and view.state is JobState.RUNNING
        image = preview(self._door, view) if is_active and body.live_preview else None
        resp.data = orjson.dumps(
            {
                "active": is_active,
                "queued": view is not None and view.state is JobState.QUEUED,
                "completed": view is not None and view.state.ended,
                "progress": share(view) if view is not None and is_active else None,
                "eta": view.eta_s if view is not None and is_active else None,
                "live_preview": None if image is None else f"data:image/jpeg;base64,{image}",
                "id_live_preview": view.step if view is not None and image else -1,
                "textinfo": None if view is None else text_of(view),
            }
        )


class InterruptResource(DoorResource):
    """POST /sdapi/v1/interrupt and /skip: ends the running jobs of this API.

    When none runs, the oldest one that waits ends. The jobs of other keys go on, unless the key is
    an admin's. The request that waits for the job is answered with no images.
    """

    def __init__(self, door: Door, answer: bytes) -> None:
        super().__init__(door)
        self._answer = answer

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer at once, also when there is nothing to end."""
        sender = principal(req)
        own = [
            (entry, view)
            for entry, view in self._door.jobs()
            if sender.is_admin or entry.job.owner == sender.name
        ]
        running = [view.uuid for _, view in own if view.state is JobState.RUNNING]
        for uuid in running or [view.uuid for _, view in own[:1]]:
            with contextlib.suppress(RequestRefused):  # it has just ended
                self._door.services.cancellation.cancel(uuid)
        resp.data = self._answer
