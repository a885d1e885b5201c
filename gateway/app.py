"""Builds the WSGI application: create_app lists every route. `__main__` runs it."""

from __future__ import annotations

from typing import Any

import falcon

from gateway.dialects.doors import ERROR_SHAPES, add_routes
from gateway.dialects.openai.signed_access import SignedAccess
from gateway.http import problems
from gateway.http.params import QueryValidator
from gateway.http.request_log import RequestLog
from gateway.monitoring.collector import ServiceCollector, registry
from gateway.openapi.document import document
from gateway.routes.events import EventsResource
from gateway.routes.gallery.changes import ChangesResource
from gateway.routes.gallery.event_stream import EventStreamResource
from gateway.routes.gallery.results import DaysResource, ResultsResource
from gateway.routes.gallery.thumbnails import ThumbnailReader
from gateway.routes.gallery.zip_archive import ZipResource
from gateway.routes.generate import GenerateResource
from gateway.routes.image_files import FileResource
from gateway.routes.input_files import InputFileResource
from gateway.routes.jobs import JobResource, JobsResource
from gateway.routes.keys import KeyResource, KeysResource
from gateway.routes.models import FieldsResource, ModelCommandResource, ModelsResource
from gateway.routes.monitoring import HealthResource, MetricsResource, ReadinessResource
from gateway.routes.preview import PreviewResource
from gateway.routes.server import (
    OpenApiResource,
    StatusResource,
    StorageResource,
    WorkersResource,
)
from gateway.routes.session import SessionResource
from gateway.routes.upscale import UpscaleResource
from gateway.routes.web import PageResource, WebFileResource, WebFiles
from gateway.services import Services

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class Application(falcon.App[falcon.Request, falcon.Response]):
    """Answers HEAD on every route with GET (RFC 9110, section 9.1); falcon omits the body."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._resources: dict[tuple[str, str], object] = {}

    def add_route(self, uri_template: str, resource: Any, **options: Any) -> None:
        """Add a route, with HEAD where the resource has GET."""
        suffix = f"_{options['suffix']}" if "suffix" in options else ""
        for method in METHODS:
            if hasattr(resource, f"on_{method.lower()}{suffix}"):
                self._resources[method, uri_template] = resource
        if hasattr(resource, "on_get"):
            resource.on_head = resource.on_get
        super().add_route(uri_template, resource, **options)

    def operations(self) -> dict[tuple[str, str], object]:
        """Return the resource of each method and path of the API, without HEAD."""
        return {
            key: resource
            for key, resource in self._resources.items()
            if getattr(resource, "is_api", True)
        }


def create_app(services: Services, max_body_bytes: int) -> Application:
    """Return the WSGI application.

    Args:
        max_body_bytes: POST /image/generate refuses a larger body with 413.
    """
    # The first one sees what the others refuse.
    app = Application(
        middleware=[
            RequestLog(services.job_log),
            ERROR_SHAPES,
            SignedAccess(services.access),
            QueryValidator(),
        ]
    )
    app.req_options.media_handlers = falcon.media.Handlers()
    app.req_options.strip_url_path_trailing_slash = True
    problems.register(app)
    _add_page_routes(app)
    _add_server_routes(app, services)
    _add_access_routes(app, services)
    _add_image_routes(app, services, max_body_bytes)
    _add_gallery_routes(app, services)
    _add_job_routes(app, services)
    add_routes(app, services, max_body_bytes)
    return app


def _add_page_routes(app: Application) -> None:
    files = WebFiles()
    app.add_route("/", PageResource(files))
    app.add_route("/web/{version}/{name:path}", WebFileResource(files))


def _add_server_routes(app: Application, services: Services) -> None:
    command = ModelCommandResource(services.capabilities, services.broker, services.commands)
    collector = ServiceCollector(
        services.broker, services.journal, services.index, services.storage, services.counts
    )
    app.add_route("/healthz", HealthResource())
    app.add_route("/readyz", ReadinessResource(services.broker, services.storage))
    app.add_route("/metrics", MetricsResource(registry(collector)))
    app.add_route("/server/status", StatusResource(services.broker, services.storage))
    app.add_route("/server/workers", WorkersResource(services.broker))
    app.add_route(
        "/server/storage", StorageResource(services.index, services.journal, services.storage)
    )
    app.add_route("/server/models", ModelsResource(services.capabilities))
    app.add_route("/server/fields", FieldsResource())
    app.add_route("/server/models/{name}/load", command, suffix="load")
    app.add_route("/server/models/{name}/unload", command, suffix="unload")


def _add_access_routes(app: Application, services: Services) -> None:
    app.add_route("/openapi.json", OpenApiResource(document()))
    app.add_route("/server/session", SessionResource(services.access))
    app.add_route("/server/keys", KeysResource(services.access.keyring))
    app.add_route("/server/keys/{name}", KeyResource(services.access.keyring))


def _add_image_routes(app: Application, services: Services, max_body_bytes: int) -> None:
    generate = GenerateResource(
        services.submission,
        services.image_reader,
        max_body_bytes,
        services.trash,
        services.index,
        services.lookup,
    )
    app.add_route("/image/generate", generate)
    upscale = UpscaleResource(
        services.submission, services.lookup, services.index, services.image_reader
    )
    app.add_route("/image/upscale", upscale)
    thumbnails = ThumbnailReader(services.index, services.thumbnails)
    app.add_route("/image/files/{name}", FileResource(services.index, services.lookup, thumbnails))


def _add_gallery_routes(app: Application, services: Services) -> None:
    changes = ChangesResource(services.trash, services.index)
    app.add_route("/image/results", ResultsResource(services.index))
    app.add_route("/image/results/days", DaysResource(services.index))
    app.add_route("/image/star", changes, suffix="star")
    app.add_route("/image/trash", changes, suffix="trash")
    app.add_route("/image/restore", changes, suffix="restore")
    app.add_route("/image/delete", changes, suffix="delete")
    app.add_route("/image/zip", ZipResource(services.index))
    app.add_route("/events", EventStreamResource(services.events, services.access.authentication))


def _add_job_routes(app: Application, services: Services) -> None:
    events = EventsResource(
        services.lookup, services.previews, services.access.authentication, services.stopping
    )
    app.add_route("/image/jobs", JobsResource(services.broker))
    app.add_route("/image/jobs/{uuid}", JobResource(services.lookup, services.cancellation))
    app.add_route("/image/jobs/{uuid}/events", events)
    app.add_route("/image/jobs/{uuid}/preview", PreviewResource(services.previews, services.lookup))
    app.add_route(
        "/image/jobs/{uuid}/inputs/{sha256}",
        InputFileResource(services.index, services.lookup, services.inputs),
    )
