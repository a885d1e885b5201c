"""Gives each HTTP request an id and a door, and reports its answer: the refusals, and a count.

It never reports a body, a query or a header beside the id.
"""

from __future__ import annotations

import re
import uuid as uuids
from typing import Any, Protocol

import falcon

from gateway.http.access_control import principal
from gateway.jobs.job_entry import CLIENT, DOORS, NATIVE, PAGE, Caller

HEADER = "X-Request-ID"

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
"""Of another form it could begin a line of the log, or fill it."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class RequestObserver(Protocol):
    """Learns of each answer."""

    def answered(self, route: str, method: str, status: int) -> None:
        """A route, by its template, has answered."""

    def refused(self, fields: dict[str, Any], problem: dict[str, Any], generation: Any) -> None:
        """A request was refused; `generation` is the checked request of a job, or None."""


class RequestLog:
    """Middleware. It stands before all others, so that it sees what they refuse, too."""

    def __init__(self, observer: RequestObserver) -> None:
        self._observer = observer

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Choose the id, and return it in the response."""
        resp.context.request_id = req.context.request_id = request_id(req.get_header(HEADER))
        req.context.door, req.context.path_uuid = native_door(req), None
        resp.set_header(HEADER, req.context.request_id)

    def process_resource(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        resource: object,
        params: dict[str, Any],
    ) -> None:
        """Note the door of a dialect, and the job that the path names."""
        req.context.path_uuid = params.get("uuid")
        door = getattr(resource, "door", None)
        if door in DOORS:
            req.context.door = door

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool
    ) -> None:
        """Report the answer. A request that waits has none yet."""
        if getattr(resp.context, "is_deferred", False):
            return
        status = resp.status_code
        route = req.uri_template or "unknown"
        method = req.method if req.method in METHODS else "other"
        self._observer.answered(route, method, status)
        if status >= 400:
            fields = {
                "request_id": req.context.request_id,
                "uuid": _uuid(req),
                "owner": _owner(req),
                "door": req.context.door,
                "method": method,
                "route": route,
                "status": status,
                "address": req.remote_addr,
            }
            problem = getattr(resp.context, "problem", {})
            generation = getattr(req.context, "generation", None)
            self._observer.refused(fields, problem, generation)


def request_id(text: str | None) -> str:
    """Return the client's own id of a request if it is well-formed, else a new one."""
    if text is not None and _REQUEST_ID.fullmatch(text):
        return text
    return uuids.uuid4().hex


def native_door(req: falcon.Request) -> str:
    """Return who uses the native routes. Only statistics depend on it, for anybody can claim it."""
    if (req.get_header("User-Agent") or "").startswith("sde-client/"):
        return CLIENT
    return PAGE if req.get_header("Sec-Fetch-Site") == "same-origin" else NATIVE


def caller(req: falcon.Request) -> Caller:
    """Return the origin of the job that the request submits."""
    return Caller(req.context.door, req.context.request_id, principal(req).name)


def _owner(req: falcon.Request) -> str | None:
    """Return the name of the request's key, None before it was checked."""
    return principal(req).name if hasattr(req.context, "principal") else None


def _uuid(req: falcon.Request) -> str | None:
    """Return the job that the path or the query names, if it is a uuid."""
    text = req.context.path_uuid or req.params.get("generation_uuid")
    try:
        return str(uuids.UUID(text)) if isinstance(text, str) else None
    except ValueError:
        return None
