"""create_app: every route on one page. Constructs only; `__main__` runs it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import falcon

from gateway.admission.capabilities import WorkerCapabilities
from gateway.admission.input_images import InputImageReader
from gateway.http import problems
from gateway.http.params import QueryValidator
from gateway.jobs.broker import Broker
from gateway.jobs.journal import Journal
from gateway.jobs.removal import Removal
from gateway.jobs.submission import JobSubmission
from gateway.routes import events, image_files, input_files, jobs, models, server
from gateway.routes import generate as image
from gateway.routes.preview import PreviewResource, Previews
from gateway.routes.upscale import UpscaleResource
from gateway.store.disk_space import DiskSpace
from gateway.store.result_index import ResultIndex
from gateway.workers.model_commands import CommandQueue


class _App(falcon.App[falcon.Request, falcon.Response]):
    """Where there is GET there is HEAD (RFC 9110, section 9.1): falcon leaves the body out."""

    def add_route(self, uri_template: str, resource: Any, **options: Any) -> None:
        """As falcon's."""
        if hasattr(resource, "on_get"):
            resource.on_head = resource.on_get
        super().add_route(uri_template, resource, **options)


def create_app(
    broker: Broker,
    journal: Journal,
    index: ResultIndex,
    storage: DiskSpace,
    removal: Removal,
    *,
    intake: JobSubmission,
    reader: InputImageReader,
    max_body_bytes: int,
    capabilities: WorkerCapabilities,
    wishes: dict[str, CommandQueue],
    previews: Previews,
    inputs_dir: Path,
    stopping: threading.Event,
) -> falcon.App[falcon.Request, falcon.Response]:
    """The WSGI application."""
    app = _App(middleware=[QueryValidator()])
    app.req_options.media_handlers = falcon.media.Handlers()
    app.req_options.strip_url_path_trailing_slash = True
    problems.register(app)
    whereabouts = jobs.JobLookup(broker, index)
    app.add_route("/server/status", server.StatusResource(broker, storage))
    app.add_route("/server/workers", server.WorkersResource(broker))
    app.add_route("/server/storage", server.StorageResource(index, journal, storage))
    load = models.ModelCommandResource(capabilities, broker, wishes)
    app.add_route("/server/models", models.ModelsResource(capabilities))
    app.add_route("/server/models/{name}/load", load, suffix="load")
    app.add_route("/server/models/{name}/unload", load, suffix="unload")
    generate = image.GenerateResource(intake, reader, max_body_bytes, removal, index)
    app.add_route("/image/generate", generate)
    app.add_route("/image/upscale", UpscaleResource(intake, whereabouts, index))
    app.add_route("/image/jobs", jobs.JobsResource(broker))
    app.add_route("/image/jobs/{uuid}", jobs.JobResource(whereabouts, removal))
    app.add_route("/image/jobs/{uuid}/preview", PreviewResource(previews, whereabouts))
    app.add_route(
        "/image/jobs/{uuid}/inputs/{sha256}",
        input_files.InputFileResource(index, whereabouts, inputs_dir),
    )
    stream = events.EventsResource(whereabouts, previews, stopping)
    app.add_route("/image/jobs/{uuid}/events", stream)
    app.add_route("/image/files/{name}", image_files.FileResource(index, whereabouts))
    app.add_route("/healthz", server.HealthResource())
    return app
