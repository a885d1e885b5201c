"""Finds what has changed since the last look: jobs, previews, workers. It keeps the last look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gateway.jobs.broker import Broker
from gateway.jobs.job_entry import JobEntry, JobState, JobView
from gateway.store.preview_reader import PreviewReader

Change = tuple[str, Any]
"""The name of an event and its data."""

MAX_PROMPT_CHARS = 200

_MOVING = {"step", "steps", "eta_s", "position"}
_WORKER_MEMBERS = ("worker", "state", "model", "loaded", "load_error", "last_error", "trouble")


class JobChanges:
    """Compares two looks at the broker. Not thread-safe.

    Args:
        workers: returns the array of GET /server/workers.
    """

    def __init__(
        self, broker: Broker, previews: PreviewReader, workers: Callable[[], list[dict[str, Any]]]
    ) -> None:
        self._broker = broker
        self._previews = previews
        self._workers = workers
        self._views: dict[str, JobView] = {}
        self._preview_versions: dict[str, int | None] = {}
        self._arrival = broker.arrivals()
        self._worker_states: object = None

    def look(self) -> Iterator[Change]:
        """Yield the events since the last look. The first look yields the jobs that have not
        ended."""
        self._arrival, pairs = self._broker.changes(self._views, self._arrival)
        views: dict[str, JobView] = {}
        for entry, view in pairs:
            yield from self._job_changes(entry, view)
            if view.state.ended:
                yield "result", _result(entry, view)
            else:
                views[view.uuid] = view
            yield from self._preview_changes(view)
        self._views = views
        self._preview_versions = {
            uuid: version for uuid, version in self._preview_versions.items() if uuid in views
        }
        yield from self._worker_changes()

    def _job_changes(self, entry: JobEntry, view: JobView) -> Iterator[Change]:
        last = self._views.get(view.uuid)
        before, now = last.json() if last else {}, view.json()
        differing = {name for name in now if name not in before or now[name] != before[name]}
        if differing - _MOVING:
            yield "job", {**now, "prompt": entry.job.request.prompt[:MAX_PROMPT_CHARS]}
        elif differing - {"eta_s"}:
            yield "progress", {name: now[name] for name in ("uuid", *sorted(_MOVING))}

    def _preview_changes(self, view: JobView) -> Iterator[Change]:
        if view.state is not JobState.RUNNING:
            return
        version = self._previews.version(view.uuid)
        if version is not None and version != self._preview_versions.get(view.uuid):
            yield "preview", {"uuid": view.uuid, "url": f"/image/jobs/{view.uuid}/preview"}
        self._preview_versions[view.uuid] = version

    def _worker_changes(self) -> Iterator[Change]:
        workers = self._workers()
        states = [[each[name] for name in _WORKER_MEMBERS] for each in workers]
        if states != self._worker_states:
            self._worker_states = states
            yield "workers", workers


def _result(entry: JobEntry, view: JobView) -> dict[str, Any]:
    request = entry.job.request
    has_images = view.state is JobState.SUCCEEDED and request.upscale is None
    count = request.num_images_per_prompt if has_images else 1
    return {"uuid": view.uuid, "state": view.state.value, "num_images": count}
