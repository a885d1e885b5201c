"""The one map from domain error to HTTP: RFC 9457 problem+json, never a traceback."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import falcon
import orjson

from gateway.errors import (
    AlreadyEnded,
    IdempotencyKeyReused,
    InvalidRequest,
    NoImage,
    NotDescribed,
    NotEnded,
    NotLoaded,
    NoWorker,
    QueueFull,
    ResultDeleted,
    StorageUnavailable,
    TooManyStreams,
    UnknownJob,
    UnknownModel,
    UnsupportedField,
    WorkerBusy,
)
from gpu_worker.contract.validation_errors import display_value
from gpu_worker.store.durable import DamagedLine

log = logging.getLogger(__name__)

Handler = Callable[[falcon.Request, falcon.Response, Any, dict[str, Any]], None]

_PLAIN: dict[type[Exception], tuple[int, str]] = {
    NoImage: (404, "No picture"),
    AlreadyEnded: (409, "Already ended"),
    NotEnded: (409, "Not ended"),
    NotLoaded: (409, "Not loaded"),
    WorkerBusy: (409, "Worker busy"),
    IdempotencyKeyReused: (409, "Key reused"),
    ResultDeleted: (410, "Deleted"),
    DamagedLine: (410, "Damaged on the disk"),
    NotDescribed: (503, "Not described yet"),
    StorageUnavailable: (507, "Insufficient storage"),
}

_COME_BACK: dict[type[Exception], tuple[int, str]] = {
    QueueFull: (429, "Not available"),
    NoWorker: (503, "No worker"),
    TooManyStreams: (503, "Too many streams"),
}

PROBLEM_JSON = "application/problem+json"


def serialize(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    """falcon's own errors (404, 405, 413, 415 ...) in the same shape."""
    title = (error.title or "Error").removeprefix(f"{error.status_code} ")
    fill(resp, error.status_code, title, error.description or _own_words(req, error) or title)


def _own_words(req: falcon.Request, error: falcon.HTTPError) -> str | None:
    if isinstance(error, falcon.HTTPRouteNotFound):
        return f"there is no {display_value(req.path)} here"
    if isinstance(error, falcon.HTTPMethodNotAllowed):
        allowed = dict(error.headers or {}).get("Allow")
        return f"{req.method} is not for {display_value(req.path)}, which takes {allowed}"
    return None


def fill(resp: falcon.Response, status: int, title: str, detail: str, **further: Any) -> None:
    """Write one problem document."""
    resp.status = status
    resp.content_type = PROBLEM_JSON
    resp.data = orjson.dumps(
        {"type": "about:blank", "title": title, "status": status, "detail": detail, **further}
    )


def register(app: falcon.App[falcon.Request, falcon.Response]) -> None:
    """Install the map."""
    app.set_error_serializer(serialize)
    app.add_error_handler(Exception, _unexpected)
    # falcon prefers the most recently added handler of a class; these are disjoint.
    app.add_error_handler(falcon.HTTPError, _falcon_error)
    app.add_error_handler(falcon.HTTPStatus, _falcon_status)
    app.add_error_handler(InvalidRequest, _invalid)
    app.add_error_handler(QueueFull, _come_back)
    app.add_error_handler(NoWorker, _come_back)
    app.add_error_handler(TooManyStreams, _come_back)
    app.add_error_handler(UnsupportedField, _unsupported)
    app.add_error_handler(UnknownJob, _unknown_job)
    app.add_error_handler(UnknownModel, _unknown_model)
    for kind, (status, title) in _PLAIN.items():
        app.add_error_handler(kind, _plain(status, title))


def _falcon_error(
    req: falcon.Request, resp: falcon.Response, ex: falcon.HTTPError, params: dict[str, Any]
) -> None:
    if ex.headers:
        resp.set_headers(ex.headers)
    serialize(req, resp, ex)


def _falcon_status(
    req: falcon.Request, resp: falcon.Response, ex: falcon.HTTPStatus, params: dict[str, Any]
) -> None:
    resp.status, resp.text = ex.status, ex.text


def _invalid(
    req: falcon.Request, resp: falcon.Response, ex: InvalidRequest, params: dict[str, Any]
) -> None:
    fill(resp, 422, "Invalid request", str(ex), errors=ex.faults)


def _unsupported(
    req: falcon.Request, resp: falcon.Response, ex: UnsupportedField, params: dict[str, Any]
) -> None:
    fault = {"field": ex.field, "message": ex.sentence, "value": display_value(ex.value)}
    fill(resp, 422, "Not supported", str(ex), errors=[fault])


def _come_back(
    req: falcon.Request,
    resp: falcon.Response,
    ex: QueueFull | NoWorker | TooManyStreams,
    params: dict[str, Any],
) -> None:
    resp.set_header("Retry-After", str(ex.retry_after_s))
    status, title = _COME_BACK[type(ex)]
    fill(resp, status, title, f"{ex}; try again in {ex.retry_after_s} s")


def _plain(status: int, title: str) -> Handler:
    def handle(
        req: falcon.Request, resp: falcon.Response, ex: Exception, params: dict[str, Any]
    ) -> None:
        fill(resp, status, title, str(ex))

    return handle


def _unknown_job(
    req: falcon.Request, resp: falcon.Response, ex: UnknownJob, params: dict[str, Any]
) -> None:
    fill(resp, 404, "Unknown job", f"no job has the uuid {ex.args[0]}")


def _unknown_model(
    req: falcon.Request, resp: falcon.Response, ex: UnknownModel, params: dict[str, Any]
) -> None:
    fill(resp, 404, "Unknown model", str(ex.args[0]))


def _unexpected(
    req: falcon.Request, resp: falcon.Response, ex: Exception, params: dict[str, Any]
) -> None:
    log.error("%s %s failed", req.method, req.path, exc_info=ex)
    fill(resp, 500, "Internal error", "the gateway's log says what happened")
