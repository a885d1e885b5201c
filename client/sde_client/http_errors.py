"""A reply that is no success becomes one of the client's errors, in the server's own words."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import requests

from sde_client.errors import (
    Conflict,
    Deleted,
    GatewayUnreachable,
    InvalidRequest,
    NotAvailable,
    SdeError,
    StorageUnavailable,
    UnexpectedReply,
    WorkerUnavailable,
)

DEFAULT_RETRY_AFTER_S = 5
"""Used where a 429 or 503 carries no Retry-After, or a date in its place."""

INVALID = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
GATEWAY_GONE = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
"""What a reverse proxy answers while the gateway behind it is away."""

WAITABLE: dict[int, tuple[type[NotAvailable], str]] = {
    HTTPStatus.TOO_MANY_REQUESTS: (NotAvailable, "the server is busy"),
    HTTPStatus.SERVICE_UNAVAILABLE: (WorkerUnavailable, "no worker is available"),
}
PLAIN: dict[int, tuple[type[SdeError], str]] = {
    HTTPStatus.CONFLICT: (Conflict, "it cannot be done as things stand"),
    HTTPStatus.GONE: (Deleted, "it has been deleted"),
    HTTPStatus.INSUFFICIENT_STORAGE: (StorageUnavailable, "the server's disk takes nothing"),
}


class NotFound(Exception):
    """404, with the server's sentence. The caller knows what was looked for."""


def refusal(reply: requests.Response, url: str, path: str) -> SdeError | NotFound:
    """What to raise for a reply whose status is not that of a success."""
    status = reply.status_code
    problem = _problem(reply)
    text = _sentence(problem)
    if status == HTTPStatus.NOT_FOUND:
        return NotFound(text)
    if status in INVALID:
        return InvalidRequest(
            text or f"the server refused the request ({status})", _errors(problem)
        )
    if status in WAITABLE:
        waitable, otherwise = WAITABLE[status]
        return waitable(text or otherwise, _retry_after_s(reply))
    if status in PLAIN:
        plain, otherwise = PLAIN[status]
        return plain(text or otherwise)
    if status in GATEWAY_GONE:
        # The proxy may have handed the request on before the gateway went away.
        return GatewayUnreachable(url, f"a proxy in front of it answered {status}", reached=True)
    if reply.is_redirect:
        return UnexpectedReply(f"{url} redirects to {reply.headers['Location']}: use that")
    return UnexpectedReply(f"{url}{path} answered {status}{': ' if text else ''}{text}")


def _problem(reply: requests.Response) -> dict[str, Any]:
    """The problem document (RFC 9457), or nothing where the reply is not one."""
    try:
        document = reply.json()
    except (requests.RequestException, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _errors(problem: dict[str, Any]) -> list[dict[str, Any]]:
    errors = problem.get("errors")
    return (
        [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    )


def _sentence(problem: dict[str, Any]) -> str:
    faults = "; ".join(_fault(error) for error in _errors(problem))
    said = problem.get("detail") or problem.get("title") or ""
    return faults or str(said)


def _fault(error: dict[str, Any]) -> str:
    value = error.get("value")
    got = "" if value is None else f" (got {value})"
    return f"{error.get('field', 'request')}: {error.get('message', 'is not valid')}{got}"


def _retry_after_s(reply: requests.Response) -> int:
    text = reply.headers.get("Retry-After", "")
    return int(text) if text.isascii() and text.isdigit() else DEFAULT_RETRY_AFTER_S
