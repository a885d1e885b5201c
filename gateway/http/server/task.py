"""Serves one request of a connection, and writes what the server itself refuses."""

from __future__ import annotations

import logging
from typing import Any

import orjson
import waitress.task

from gateway.http.access_control import BEARER
from gateway.http.deferred_request import RESUMED, DeferredRequest
from gateway.http.detached_stream import TASK, DetachedStream
from gateway.http.problems import PROBLEM_JSON, document
from gateway.http.request_log import HEADER, request_id
from gateway.http.server.parser import Refused
from gpu_worker.store.log_format import FIELDS

log = logging.getLogger(__name__)

MAX_DETAIL_CHARS = 200


class ProblemTask(waitress.task.ErrorTask):  # type: ignore[misc]
    """Writes what waitress itself refuses as a problem document."""

    def execute(self) -> None:
        """Write the document and close the connection: the rest of the request is unread."""
        error = self.request.error
        self.status = f"{error.code} {error.reason}"
        # waitress refuses what is no request, so falcon gives it no id.
        identifier = request_id(None)
        log.info("request refused: %s", error.body, extra={FIELDS: {"request_id": identifier}})
        body = _document(error, identifier)
        self.response_headers.append((HEADER, identifier))
        self.response_headers.append(("Content-Type", PROBLEM_JSON))
        retry_after_s = getattr(error, "retry_after_s", None)
        if retry_after_s is not None:
            self.response_headers.append(("Retry-After", str(retry_after_s)))
        if error.code == 401:
            self.response_headers.append(("WWW-Authenticate", BEARER))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


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


def refusal(error: Refused) -> bytes:
    """Return a whole response, for a connection that is closed outside the pool of threads."""
    identifier = request_id(None)
    body = _document(error, identifier)
    retry = b"" if error.retry_after_s is None else b"Retry-After: %d\r\n" % error.retry_after_s
    return (
        b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%sConnection: close\r\n\r\n%s"
        % (error.code, error.reason.encode(), PROBLEM_JSON.encode(), len(body), retry, body)
    )


def _document(error: Any, identifier: str) -> bytes:
    detail = str(error.body)[:MAX_DETAIL_CHARS]
    return orjson.dumps(document(error.code, error.reason, detail, error.reason, identifier))
