"""The one map from an error to HTTP: RFC 9457 problem+json, never a traceback."""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Callable
from typing import Any

import falcon
import orjson

from gateway.errors import RequestRefused
from gpu_worker.contract.validation_errors import Unsupported, display_value
from gpu_worker.store.durable import DamagedLine

log = logging.getLogger(__name__)

Handler = Callable[[falcon.Request, falcon.Response, Any, dict[str, Any]], None]

INDEX_RETRY_S = 5

PROBLEM_JSON = "application/problem+json"

TYPE_PREFIX = "urn:sde:problem:"

_WORDS = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
"""Where words begin: QueueFull and "Queue full" are both queue-full."""


def serialize(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    """Write falcon's own errors (404, 405, 413, 415 ...) in the same shape."""
    title = (error.title or "Error").removeprefix(f"{error.status_code} ")
    fill(resp, error.status_code, title, error.description or _own_words(req, error) or title)


def _own_words(req: falcon.Request, error: falcon.HTTPError) -> str | None:
    if isinstance(error, falcon.HTTPRouteNotFound):
        return f"the path {display_value(req.path)} does not exist"
    if isinstance(error, falcon.HTTPMethodNotAllowed):
        allowed = dict(error.headers or {}).get("Allow")
        return f"{display_value(req.path)} does not allow {req.method}; it allows {allowed}"
    return None


def fill(
    resp: falcon.Response,
    status: int,
    title: str,
    detail: str,
    kind: str | None = None,
    **further: Any,
) -> None:
    """Write one problem document. Without a `kind` its type follows from its title."""
    request_id = getattr(resp.context, "request_id", None)
    problem = document(status, title, detail, kind or title, request_id, **further)
    resp.context.problem = problem
    resp.status = status
    resp.content_type = PROBLEM_JSON
    resp.data = orjson.dumps(problem)


def document(
    status: int, title: str, detail: str, kind: str, request_id: str | None, **further: Any
) -> dict[str, Any]:
    """Return a problem document (RFC 9457).

    Its `type` is stable, and docs/http-api.md lists the types. `request_id` finds it in the log.
    """
    return {
        "type": TYPE_PREFIX + _WORDS.sub("-", kind).strip("-").lower(),
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request_id,
        **further,
    }


def register(app: falcon.App[falcon.Request, falcon.Response]) -> None:
    """Install the map. falcon takes the handler of the nearest class."""
    app.set_error_serializer(serialize)
    for kind, handler in _HANDLERS.items():
        app.add_error_handler(kind, _without_traceback(handler))


def _without_traceback(handler: Handler) -> Handler:
    """Return a handler that takes the frames from its error.

    A frame that has its own error in a variable would keep a request's body until the collector of
    cycles runs, which may be much later.
    """

    def handle(
        req: falcon.Request, resp: falcon.Response, ex: Exception, params: dict[str, Any]
    ) -> None:
        try:
            handler(req, resp, ex, params)
        finally:
            ex.__traceback__ = None

    return handle


def _refused(
    req: falcon.Request, resp: falcon.Response, ex: RequestRefused, params: dict[str, Any]
) -> None:
    if ex.retry_after_s is not None:
        resp.set_header("Retry-After", str(ex.retry_after_s))
    fill(resp, ex.status, ex.title, ex.detail, type(ex).__name__, **ex.further)


def _unsupported(
    req: falcon.Request, resp: falcon.Response, ex: Unsupported, params: dict[str, Any]
) -> None:
    fill(resp, 422, "Not supported", str(ex), errors=[ex.error])


def _damaged(
    req: falcon.Request, resp: falcon.Response, ex: DamagedLine, params: dict[str, Any]
) -> None:
    fill(resp, 410, "Damaged on the disk", str(ex))


def _index(
    req: falcon.Request, resp: falcon.Response, ex: sqlite3.Error, params: dict[str, Any]
) -> None:
    log.error("%s: the index cannot be used: %s", req.uri_template, ex)
    resp.set_header("Retry-After", str(INDEX_RETRY_S))
    detail = f"the index of the results cannot be read now; try again in {INDEX_RETRY_S} s"
    fill(resp, 503, "Index unavailable", detail)


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


def _unexpected(
    req: falcon.Request, resp: falcon.Response, ex: Exception, params: dict[str, Any]
) -> None:
    log.error("%s %s failed", req.method, req.path, exc_info=ex)
    fill(resp, 500, "Internal error", "the gateway failed to answer; its log has the reason")


_HANDLERS: dict[type[Exception], Handler] = {
    Exception: _unexpected,
    falcon.HTTPError: _falcon_error,
    falcon.HTTPStatus: _falcon_status,
    RequestRefused: _refused,
    Unsupported: _unsupported,
    DamagedLine: _damaged,
    sqlite3.Error: _index,
}
