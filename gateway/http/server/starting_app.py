"""Answers while the gateway reads its store, which takes long without an index: 503, and how far.

It is the WSGI application until another one takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import falcon
import orjson

from gateway.access.rules import AccessRules
from gateway.errors import RequestRefused
from gateway.http.access_control import SECURITY_HEADERS
from gateway.http.error_shapes import ErrorForm, ErrorShapes
from gateway.http.problems import document
from gateway.http.request_log import request_id
from gateway.store.indexer import IndexProgress

RETRY_AFTER_S = 5

_HEADERS = [("Cache-Control", "no-store"), *SECURITY_HEADERS.items()]

_ANSWERS = {"/healthz": {"status": "ok"}, "/server/status": {"is_available": False}}

StartResponse = Callable[..., Any]
Wsgi = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class StartingApp:
    """A WSGI application that becomes another one. Thread-safe.

    Args:
        access: decides who learns the progress. Others learn that the service starts.
        error_shapes: decides the form of an error.
    """

    def __init__(
        self, progress: IndexProgress, access: AccessRules, error_shapes: ErrorShapes
    ) -> None:
        self._progress = progress
        self._access = access
        self._error_shapes = error_shapes
        self._successor: Wsgi | None = None

    def become(self, successor: Wsgi) -> None:
        """Have another application answer every request from now on."""
        self._successor = successor

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        if self._successor is not None:
            return self._successor(environ, start_response)
        form = self._answer(environ)
        headers = [
            ("Content-Type", form.content_type),
            ("Content-Length", str(len(form.body))),
            *_HEADERS,
            *form.headers.items(),
        ]
        if form.status == 503:
            headers.append(("Retry-After", str(RETRY_AFTER_S)))
        start_response(falcon.code_to_http_status(form.status), headers)
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [form.body]

    def _answer(self, environ: dict[str, Any]) -> ErrorForm:
        """Return the answer. None has more than the progress."""
        path = environ.get("PATH_INFO", "")
        try:
            is_forwarded = self._access.check_host(environ)
        except RequestRefused as refusal:
            return self._problem(path, refusal.status, refusal.title, refusal.detail)
        is_read = environ.get("REQUEST_METHOD") in ("GET", "HEAD")
        if path.rstrip("/") in _ANSWERS and is_read:
            return ErrorForm(200, falcon.MEDIA_JSON, orjson.dumps(_ANSWERS[path.rstrip("/")]))
        detail = f"the service is starting; try again in {RETRY_AFTER_S} s"
        if self._is_known(environ, is_forwarded):
            detail = (
                f"the index of the results is being built, {self._progress.percent} % of "
                f"{self._progress.total_bytes >> 20} MiB; try again in {RETRY_AFTER_S} s"
            )
        return self._problem(path, 503, "Starting", detail)

    def _problem(self, path: str, status: int, title: str, detail: str) -> ErrorForm:
        problem = document(status, title, detail, title, request_id(None))
        return self._error_shapes.form(path, problem)

    def _is_known(self, environ: dict[str, Any], is_forwarded: bool) -> bool:
        try:
            self._access.sender(environ, is_forwarded)
        except RequestRefused:
            return False
        return True
