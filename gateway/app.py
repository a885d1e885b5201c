"""Builds the WSGI application: create_app lists every route. `__main__` runs it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import falcon

from gateway.admission.capabilities import WorkerCapabilities
from gateway.admission.input_images import InputImageReader
from gateway.http import problems
from gateway.http.params import QueryValidator
from gateway.jobs.broker import Broker
from gateway.jobs.cancellation import JobCancellation
from gateway.jobs.deletion import ResultDeletion
from gateway.jobs.journal import Journal
from gateway.jobs.lookup import JobLookup
from gateway.jobs.submission import JobSubmission
from gateway.routes.events import EventsResource
from gateway.routes.generate import GenerateResource
from gateway.routes.image_files import FileResource
from gateway.routes.input_files import InputFileResource
from gateway.routes.jobs import JobResource, JobsResource
from gateway.routes.models import ModelCommandResource, ModelsResource
from gateway.routes.preview import PreviewResource
from gateway.routes.server import (
    HealthResource,
    StatusResource,
    StorageResource,
    WorkersResource,
)
from gateway.routes.upscale import UpscaleResource
from gateway.store.disk_space import DiskSpace
from gateway.store.input_store import InputStore
from gateway.store.preview_reader import PreviewReader
from gateway.store.result_index import ResultIndex
from gateway.workers.model_commands import CommandQueue

App = falcon.App[falcon.Request, falcon.Response]


@dataclass(frozen=True)
class Services:
    """The parts that the routes use. `commands` maps a worker's name to its command queue."""

    broker: Broker
    journal: Journal
    index: ResultIndex
    inputs: InputStore
    storage: DiskSpace
    previews: PreviewReader
    capabilities: WorkerCapabilities
    image_reader: InputImageReader
    lookup: JobLookup
    submission: JobSubmission
    cancellation: JobCancellation
    deletion: ResultDeletion
    commands: dict[str, CommandQueue]
    stopping: threading.Event


class _App(falcon.App[falcon.Request, falcon.Response]):
    """Answers HEAD on every route with GET (RFC 9110, section 9.1); falcon omits the body."""

    def add_route(self, uri_template: str, resource: Any, **options: Any) -> None:
        """Add a route, with HEAD where the resource has GET."""
        if hasattr(resource, "on_get"):
            resource.on_head = resource.on_get
        super().add_route(uri_template, resource, **options)


def create_app(services: Services, max_body_bytes: int) -> App:
    """Return the WSGI application.

    Args:
        max_body_bytes: POST /image/generate refuses a larger body with 413.
    """
    app = _App(middleware=[QueryValidator()])
    app.req_options.media_handlers = falcon.media.Handlers()
    app.req_options.strip_url_path_trailing_slash = True
    problems.register(app)
    _add_server_routes(app, services)
    _add_image_routes(app, services, max_body_bytes)
    _add_job_routes(app, services)
    return app


def _add_server_routes(app: App, services: Services) -> None:
    command = ModelCommandResource(services.capabilities, services.broker, services.commands)
    app.add_route("/healthz", HealthResource())
    app.add_route("/server/status", StatusResource(services.broker, services.storage))
    app.add_route("/server/workers", WorkersResource(services.broker))
    app.add_route(
        "/server/storage", StorageResource(services.index, services.journal, services.storage)
    )
    app.add_route("/server/models", ModelsResource(services.capabilities))
    app.add_route("/server/models/{name}/load", command, suffix="load")
    app.add_route("/server/models/{name}/unload", command, suffix="unload")


def _add_image_routes(app: App, services: Services, max_body_bytes: int) -> None:
    generate = GenerateResource(
        services.submission,
        services.image_reader,
        max_body_bytes,
        services.deletion,
        services.index,
    )
    app.add_route("/image/generate", generate)
    app.add_route(
        "/image/upscale", UpscaleResource(services.submission, services.lookup, services.index)
    )
    app.add_route("/image/files/{name}", FileResource(services.index, services.lookup))


def _add_job_routes(app: App, services: Services) -> None:
    events = EventsResource(services.lookup, services.previews, services.stopping)
    app.add_route("/image/jobs", JobsResource(services.broker))
    app.add_route("/image/jobs/{uuid}", JobResource(services.lookup, services.cancellation))
    app.add_route("/image/jobs/{uuid}/events", events)
    app.add_route("/image/jobs/{uuid}/preview", PreviewResource(services.previews, services.lookup))
    app.add_route(
        "/image/jobs/{uuid}/inputs/{sha256}",
        InputFileResource(services.index, services.lookup, services.inputs),
    )
