"""Serves one request of a connection, and writes what the server itself refuses."""

from __future__ import annotations

import logging
from typing import Any

import falcon
import waitress.task

from gateway.http.deferred_request import RESUMED, DeferredRequest
from gateway.http.detached_stream import TASK, DetachedStream
from gateway.http.error_shapes import ErrorForm, ErrorShapes
from gateway.http.problems import document
from gateway.http.request_log import HEADER, request_id
from gateway.http.server.parser import Refused
from gpu_worker.store.log_format import FIELDS

log = logging.getLogger(__name__)

MAX_DETAIL_CHARS = 200


class ProblemTask(waitress.task.ErrorTask):  # type: ignore[misc]
    """Writes what waitress itself refuses, in the form that the errors of its path have."""

    def execute(self) -> None:
        """Write the error and close the connection: the rest of the request is unread."""
        error = self.request.error
        # waitress refuses what is no request, so falcon gives it no id.
        identifier = request_id(None)
        log.info("request refused: %s", error.body, extra={FIELDS: {"request_id": identifier}})
        form = _form(error, self.request.path, self.channel.server, identifier)
        self.status = falcon.code_to_http_status(form.status)
        self.response_headers.extend(_headers(error, form, identifier))
        self.set_close_on_finish()
        self.content_length = len(form.body)
        self.write(form.body)


class Task(waitress.task.WSGITask):  # type: ignore[misc]
    """Serves one request. A response to HEAD has no body, so no end of chunks either.

    `detached` is the body of a response that goes on after this task. `deferred` is the request
    itself where it waits and is served again.
    """

    detached: DetachedStream | None = None
    deferred: DeferredRequest | None = None

    def get_environment(self) -> dict[str, Any]:
        """Return the environment of WSGI, with this task in it."""
        environ: dict[str, Any] = super().get_environment()
        environ[TASK] = self
        environ[RESUMED] = getattr(self.request, "resumed", None)
        return environ

    def finish(self) -> None:
        """Write what is left of the response (RFC 9112, section 6.3)."""
        if self.deferred is not None and not self.wrote_header:
            self.channel.defer(self.request, self.deferred)
            self.close_on_finish = False
            return
        if self.detached is not None and self.wrote_header:
            self.channel.is_detached = self.channel.is_answered = True
            self.close_on_finish = False
            self.detached.take_over(self.channel, self.write)
            return
        if self.request.command == "HEAD":
            if not self.wrote_header:
                self.write(b"")
            self.chunked_response = False
        super().finish()
        self.channel.is_answered = True


def refusal(error: Refused, request: Any, server: Any) -> bytes:
    """Return a whole response, for a connection that is closed outside the pool of threads.

    Args:
        request: the parser of the incomplete request, or None.
    """
    identifier = request_id(None)
    form = _form(error, "" if request is None else request.path, server, identifier)
    fields = [
        *_headers(error, form, identifier),
        ("Content-Length", str(len(form.body))),
        ("Connection", "close"),
    ]
    lines = [f"HTTP/1.1 {falcon.code_to_http_status(form.status)}"]
    lines.extend(f"{name}: {value}" for name, value in fields)
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + form.body


def _form(error: Any, path: str, server: Any, identifier: str) -> ErrorForm:
    """Return the error as its path has them. The path is empty where none was read."""
    detail = str(error.body)[:MAX_DETAIL_CHARS]
    problem = document(error.code, error.reason, detail, error.reason, identifier)
    shapes: ErrorShapes = server.error_shapes
    prefix = server.adj.url_prefix
    return shapes.form(
        path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path, problem
    )


def _headers(error: Any, form: ErrorForm, identifier: str) -> list[tuple[str, str]]:
    """Return the header fields of an error, except those of the connection."""
    retry_after_s = getattr(error, "retry_after_s", None)
    retry = [] if retry_after_s is None else [("Retry-After", str(retry_after_s))]
    return [
        (HEADER, identifier),
        ("Content-Type", form.content_type),
        *retry,
        *form.headers.items(),
    ]
