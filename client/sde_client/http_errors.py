"""Turns an unsuccessful reply into an exception of the client, with the server's own message."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import requests

from sde_client.errors import (
    Conflict,
    Deleted,
    GatewayUnreachable,
    InvalidRequest,
    KeyRequired,
    NotAllowed,
    NotAvailable,
    SdeError,
    StorageUnavailable,
    UnexpectedReply,
    WorkerUnavailable,
)

DEFAULT_RETRY_AFTER_S = 5
"""The delay if a 429 or 503 has no Retry-After header, or one with a date."""

INVALID = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
GATEWAY_AWAY = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
"""The statuses of a reverse proxy whose gateway is away."""

WAITABLE: dict[int, tuple[type[NotAvailable], str]] = {
    HTTPStatus.TOO_MANY_REQUESTS: (NotAvailable, "the server is busy"),
    HTTPStatus.SERVICE_UNAVAILABLE: (WorkerUnavailable, "no worker is available"),
}
PLAIN: dict[int, tuple[type[SdeError], str]] = {
    HTTPStatus.UNAUTHORIZED: (KeyRequired, "the server needs a valid key"),
    HTTPStatus.FORBIDDEN: (NotAllowed, "the server does not allow this"),
    HTTPStatus.MISDIRECTED_REQUEST: (NotAllowed, "the server does not have this name"),
    HTTPStatus.CONFLICT: (Conflict, "the state of the server forbids this"),
    HTTPStatus.GONE: (Deleted, "the result has been deleted"),
    HTTPStatus.INSUFFICIENT_STORAGE: (
        StorageUnavailable,
        "the server's disk cannot store anything now",
    ),
}

KEY_HINT = ". Set SDE_KEY, or use the link that the service printed as the address."


class NotFound(Exception):
    """The server answered 404. The caller knows what does not exist."""


def refusal(reply: requests.Response, url: str, path: str) -> SdeError | NotFound:
    """Return the exception for a reply with an unsuccessful status."""
    status = reply.status_code
    problem = _problem(reply)
    text = _message(problem)
    if status == HTTPStatus.NOT_FOUND:
        return NotFound(text)
    if status in INVALID:
        return InvalidRequest(
            text or f"the server refused the request ({status})", _errors(problem)
        )
    if status in WAITABLE:
        waitable, default = WAITABLE[status]
        return waitable(text or default, _retry_after_s(reply))
    if status in PLAIN:
        plain, default = PLAIN[status]
        hint = KEY_HINT if plain is KeyRequired else ""
        return plain(f"{text or default}{hint}")
    if status in GATEWAY_AWAY:
        # The proxy may have forwarded the request before the gateway went away.
        return GatewayUnreachable(url, f"a proxy in front of it answered {status}", reached=True)
    if reply.is_redirect:
        return UnexpectedReply(f"{url} redirects to {reply.headers['Location']}; use that address")
    return UnexpectedReply(f"{url}{path} answered {status}{': ' if text else ''}{text}")


def _problem(reply: requests.Response) -> dict[str, Any]:
    """Return the problem document (RFC 9457), or an empty one if the reply has none."""
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


def _message(problem: dict[str, Any]) -> str:
    fields = "; ".join(_field_message(error) for error in _errors(problem))
    detail = problem.get("detail") or problem.get("title") or ""
    return fields or str(detail)


def _field_message(error: dict[str, Any]) -> str:
    value = error.get("value")
    got = "" if value is None else f" (got {value})"
    return f"{error.get('field', 'request')}: {error.get('message', 'is not valid')}{got}"


def _retry_after_s(reply: requests.Response) -> int:
    text = reply.headers.get("Retry-After", "")
    return int(text) if text.isascii() and text.isdigit() else DEFAULT_RETRY_AFTER_S
