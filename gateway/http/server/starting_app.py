"""Answers while the gateway reads its store, which takes long without an index: 503, and how far.

It is the WSGI application until another one takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import orjson

from gateway.access.rules import AccessRules
from gateway.errors import RequestRefused
from gateway.http.access_control import SECURITY_HEADERS
from gateway.http.problems import document
from gateway.http.request_log import request_id
from gateway.store.indexer import IndexProgress

RETRY_AFTER_S = 5

_HEADERS = [("Cache-Control", "no-store"), *SECURITY_HEADERS.items()]

StartResponse = Callable[..., Any]
Wsgi = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class StartingApp:
    """A WSGI application that becomes another one. Thread-safe.

    Args:
        access: decides who learns the progress. Others learn that the service starts.
    """

    def __init__(self, progress: IndexProgress, access: AccessRules) -> None:
        self._progress = progress
        self._access = access
        self._successor: Wsgi | None = None

    def become(self, successor: Wsgi) -> None:
        """Have another application answer every request from now on."""
        self._successor = successor

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        if self._successor is not None:
            return self._successor(environ, start_response)
        status, content = self._answer(environ)
        kind = "json" if status.startswith("200") else "problem+json"
        headers = [
            ("Content-Type", f"application/{kind}"),
            ("Content-Length", str(len(content))),
            *_HEADERS,
        ]
        if status.startswith("503"):
            headers.append(("Retry-After", str(RETRY_AFTER_S)))
        start_response(status, headers)
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [content]

    def _answer(self, environ: dict[str, Any]) -> tuple[str, bytes]:
        """Return the status and the body. No answer has more than the progress."""
        try:
            is_forwarded = self._access.check_host(environ)
        except RequestRefused as refusal:
            return f"{refusal.status} {refusal.title}", _problem(
                refusal.status, refusal.title, refusal.detail
            )
        path = environ.get("PATH_INFO", "").rstrip("/")
        is_read = environ.get("REQUEST_METHOD") in ("GET", "HEAD")
        if path == "/healthz" and is_read:
            return "200 OK", orjson.dumps({"status": "ok"})
        if path == "/server/status" and is_read:
            return "200 OK", orjson.dumps({"is_available": False})
        detail = f"the service is starting; try again in {RETRY_AFTER_S} s"
        if self._is_known(environ, is_forwarded):
            detail = (
                f"the index of the results is being built, {self._progress.percent} % of "
                f"{self._progress.total_bytes >> 20} MiB; try again in {RETRY_AFTER_S} s"
            )
        return "503 Service Unavailable", _problem(503, "Starting", detail)

    def _is_known(self, environ: dict[str, Any], is_forwarded: bool) -> bool:
        try:
            self._access.sender(environ, is_forwarded)
        except RequestRefused:
            return False
        return True


def _problem(status: int, title: str, detail: str) -> bytes:
    return orjson.dumps(document(status, title, detail, title, request_id(None)))
