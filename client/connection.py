"""One HTTP connection to a gateway: replies become JSON, whatever else happens becomes an SdeError.

Knows status codes and sockets, nothing of jobs or pictures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import requests

from client import record_stream
from client.errors import (
    BadAddress,
    GatewayUnreachable,
    InvalidRequest,
    NotAvailable,
    SdeError,
    UnexpectedReply,
    WorkerUnavailable,
)

DEFAULT_RETRY_AFTER_S = 5
"""Used where a 429 or 503 carries no Retry-After, or a date in its place."""

CHUNK_BYTES = 1 << 20

REFUSALS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
GATEWAY_GONE = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
"""What a reverse proxy answers while the gateway behind it is away."""


class NotFound(Exception):
    """404. The caller knows what was looked for."""


class Connection:
    """A keep-alive HTTP session. `timeout_s` bounds connecting and each wait for bytes."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.url = _address(url)
        self._timeout_s = timeout_s
        self._session = requests.Session()
        # HTTP_PROXY is for the world outside: no proxy can reach this machine's own loopback.
        self._session.trust_env = not _is_loopback(self.url)

    def close(self) -> None:
        """Close the sockets."""
        self._session.close()

    def get(self, path: str) -> object:
        """The reply's JSON. Raises NotFound or an SdeError."""
        return self._json("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> object:
        """Send `body` as JSON; never sent twice. Raises NotFound or an SdeError."""
        try:
            content = json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"a parameter cannot be sent as JSON: {error}") from None
        return self._json("POST", path, content)

    def stream(self, path: str, query: dict[str, str]) -> Iterator[object]:
        """Elements of a JSON array as they arrive; one in memory at a time. Raises as get()."""
        reply = self._send("GET", path, query=query)
        with reply:
            try:
                yield from record_stream.records(reply.iter_content(CHUNK_BYTES))
            except record_stream.CutOff:
                raise GatewayUnreachable(self.url, "the reply ended too early") from None
            except requests.RequestException as error:
                raise self._unreachable(error) from error

    def _json(self, method: str, path: str, content: bytes | None = None) -> object:
        with self._send(method, path, content) as reply:
            try:
                decoded: object = reply.json()
            except requests.JSONDecodeError:
                raise UnexpectedReply(f"{self.url}{path} did not answer with JSON") from None
            except requests.RequestException as error:
                raise self._unreachable(error, method) from error
            except (ValueError, RecursionError):
                raise UnexpectedReply(f"{self.url}{path} did not answer with JSON") from None
            return decoded

    def _send(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        query: dict[str, str] | None = None,
    ) -> requests.Response:
        try:
            reply = self._session.request(
                method,
                self.url + path,
                params=query,
                data=content,
                headers={"Content-Type": "application/json"} if content is not None else None,
                timeout=self._timeout_s,
                stream=True,
                # Followed, a redirect would turn the POST into a GET and lose the prompt.
                allow_redirects=False,
            )
        except (requests.exceptions.InvalidURL, UnicodeError) as error:
            raise BadAddress(f"{self.url} is not a usable address: {error}") from None
        except requests.RequestException as error:
            raise self._unreachable(error, method) from error
        if reply.status_code == HTTPStatus.OK:
            return reply
        with reply:
            raise self._refusal(reply, path)

    def _refusal(self, reply: requests.Response, path: str) -> SdeError | NotFound:
        status = reply.status_code
        problem = _problem(reply)
        text = _sentence(problem)
        if status == HTTPStatus.NOT_FOUND:
            return NotFound(text)
        if status in REFUSALS:
            return InvalidRequest(
                text or f"the server refused the request ({status})", _errors(problem)
            )
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return NotAvailable(text or "the server is busy", _retry_after_s(reply))
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            return WorkerUnavailable(text or "no worker is available", _retry_after_s(reply))
        if status in GATEWAY_GONE:
            return GatewayUnreachable(self.url, f"a proxy in front of it answered {status}")
        if reply.is_redirect:
            return UnexpectedReply(f"{self.url} redirects to {reply.headers['Location']}: use that")
        return UnexpectedReply(f"{self.url}{path} answered {status}{': ' if text else ''}{text}")

    def _unreachable(self, error: Exception, method: str = "GET") -> GatewayUnreachable:
        reason = _reason(error, self._timeout_s)
        if method == "POST" and not _never_connected(error):
            reason += ", and whether it took the job is not known: its list of results will tell"
        return GatewayUnreachable(self.url, reason)


def _address(url: str) -> str:
    given = url.strip()
    full = given if "://" in given else f"http://{given}"
    try:
        parts = urlsplit(full)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = None
    if not usable:
        raise BadAddress(f"{url!r} is not an address like http://127.0.0.1:9090")
    return full.rstrip("/")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


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


def _never_connected(error: Exception) -> bool:
    return "NewConnectionError" in repr(error) or isinstance(error, requests.ConnectTimeout)


def _reason(error: Exception, timeout_s: float) -> str:
    """The system's own word, from the innermost cause: `Connection refused`, no chain of them."""
    if isinstance(error, requests.Timeout):
        return f"no answer within {timeout_s:g} s"
    cause: BaseException | None = error
    said = "the connection broke"
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            said = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return said
