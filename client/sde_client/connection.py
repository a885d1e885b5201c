"""An HTTP connection to a gateway: it returns JSON and turns every failure into an SdeError.

It knows how connections fail, but nothing of jobs or images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
from urllib3.exceptions import NewConnectionError

from sde_client import json_array_reader
from sde_client.errors import (
    BadAddress,
    GatewayUnreachable,
    InvalidRequest,
    SdeError,
    UnexpectedReply,
)
from sde_client.http_errors import refusal

CHUNK_BYTES = 1 << 20

_IS_PLAIN_HTTP = re.compile(r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE")
"""Reasons of OpenSSL when the other side does not speak TLS."""

SUCCESSES = {
    "GET": (HTTPStatus.OK,),
    "POST": (HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED),
    "DELETE": (HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT),
}

Query = dict[str, str]


def _version() -> str:
    try:
        return version("sde-client")
    except PackageNotFoundError:  # it runs from its source
        return "0"


class Connection:
    """A keep-alive HTTP session. `timeout_s` bounds connecting and each wait for bytes.

    Each method raises NotFound or an SdeError. No method sends a request twice.
    """

    def __init__(self, url: str, timeout_s: float, key: str | None = None) -> None:
        address, _, fragment = url.partition("#")
        self.url = _address(address)
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"sde-client/{_version()}"
        # HTTP_PROXY is for other hosts: no proxy can reach this machine's loopback address.
        self._session.trust_env = not self.is_local
        link_key = fragment.removeprefix("key=") if fragment.startswith("key=") else None
        secret = key or link_key
        self.has_key = bool(secret)
        if secret:
            self._session.auth = _bearer(secret)

    @property
    def is_local(self) -> bool:
        """Return whether the address is one of this machine's loopback."""
        return _is_loopback(self.url)

    def close(self) -> None:
        """Close the sockets."""
        self._session.close()

    def get(self, path: str, query: Query | None = None, hold_s: float = 0) -> object:
        """Return the reply's JSON; the server may delay it by up to `hold_s` seconds."""
        with self._send("GET", path, query=query, hold_s=hold_s) as reply:
            return self._json(reply, path)

    def get_bytes(self, path: str) -> bytes:
        """Return the reply's body."""
        with self._send("GET", path) as reply:
            try:
                return reply.content
            except requests.RequestException as error:
                raise self._unreachable(error) from error

    def post(self, path: str, body: dict[str, Any], key: str | None = None) -> object:
        """Send `body` as JSON, with `key` as its Idempotency-Key, and return the reply's JSON."""
        try:
            content = json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"a parameter cannot be sent as JSON: {error}") from None
        headers = {"Content-Type": "application/json"}
        if key is not None:
            if not (key.isascii() and key.isprintable() and key == key.strip()):
                raise InvalidRequest(
                    "idempotency_key: must be printable ASCII without spaces at its ends, "
                    f"not {key!a}"
                )
            headers["Idempotency-Key"] = key
        with self._send("POST", path, content=content, headers=headers) as reply:
            return self._json(reply, path)

    def delete(self, path: str, query: Query | None = None) -> object:
        """Send a DELETE request and return the reply's JSON, or None if it has no body."""
        with self._send("DELETE", path, query=query) as reply:
            if reply.status_code == HTTPStatus.NO_CONTENT:
                return None
            return self._json(reply, path)

    def stream(self, path: str, query: Query) -> tuple[Iterator[object], Query]:
        """Return the elements of a JSON array, read as they arrive, and the next page's query.

        One element is in memory at a time. The query is empty after the last page.
        """
        reply = self._send("GET", path, query=query)
        next_url = reply.links.get("next", {}).get("url", "")
        return self._elements(reply), dict(parse_qsl(next_url.partition("?")[2]))

    def _elements(self, reply: requests.Response) -> Iterator[object]:
        with reply:
            try:
                yield from json_array_reader.records(reply.iter_content(CHUNK_BYTES))
            except json_array_reader.CutOff:
                raise GatewayUnreachable(self.url, "the reply was cut off", reached=True) from None
            except requests.RequestException as error:
                raise self._unreachable(error) from error

    def _json(self, reply: requests.Response, path: str) -> object:
        try:
            decoded: object = reply.json()
        except (ValueError, RecursionError):
            raise UnexpectedReply(f"{self.url}{path} did not reply with JSON") from None
        except requests.RequestException as error:
            raise self._unreachable(error) from error
        return decoded

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        hold_s: float = 0,
    ) -> requests.Response:
        try:
            reply = self._session.request(
                method,
                self.url + path,
                params=query,
                data=content,
                headers=headers,
                timeout=(self._timeout_s, self._timeout_s + hold_s),
                stream=True,
                # Following a redirect would turn the POST into a GET and lose the prompt.
                allow_redirects=False,
            )
        except requests.exceptions.InvalidProxyURL:
            raise BadAddress(
                "the proxy in HTTP_PROXY or ALL_PROXY is not an address like http://host:port"
            ) from None
        except (requests.exceptions.InvalidURL, UnicodeError) as error:
            raise BadAddress(f"{self.url} is not a usable address: {error}") from None
        except requests.RequestException as error:
            raise self._unreachable(error) from error
        if reply.status_code in SUCCESSES[method]:
            return reply
        with reply:
            raise refusal(reply, self.url, path)

    def _unreachable(self, error: requests.RequestException) -> GatewayUnreachable:
        reason = _reason(error, self._timeout_s)
        proxy = self._session.trust_env and requests.utils.select_proxy(
            self.url, requests.utils.get_environ_proxies(self.url)
        )
        if proxy:
            # The environment (HTTP_PROXY and so on) names it, and the user may not know.
            reason = f"{reason}, through the proxy {_without_password(proxy)}"
        return GatewayUnreachable(self.url, reason, _reached(error))


def _bearer(key: str) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """Return what adds the key to each request, so that no .netrc replaces it."""
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise BadAddress("the key is not printable ASCII without spaces; copy it again")

    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {key}"
        return request

    return authorize


def _address(url: str) -> str:
    address = url.strip()
    full = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(full)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = None
    if not usable:
        raise BadAddress(f"{url!r} is not an address like http://127.0.0.1:9090")
    return full.rstrip("/")


def _without_password(proxy: str) -> str:
    head, at, host = proxy.rpartition("@")
    if not at:
        return proxy
    scheme, separator, _ = head.partition("://")
    return f"{scheme}://{host}" if separator else host


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _reached(error: requests.RequestException) -> bool:
    """Return whether the request may have been sent: TLS, or else TCP, was connected."""
    unsent = (
        requests.ConnectTimeout,
        requests.exceptions.ProxyError,
        requests.exceptions.SSLError,
    )
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return not isinstance(error, unsent) and not isinstance(reason, NewConnectionError)


def _reason(error: requests.RequestException, timeout_s: float) -> str:
    """Return the operating system's message of the innermost cause: `Connection refused`."""
    if isinstance(error, requests.Timeout):
        return f"no reply within {timeout_s:g} s"
    if isinstance(error, requests.exceptions.InvalidSchema) and "SOCKS" in str(error):
        return "a SOCKS proxy needs: pip install 'requests[socks]'"
    if isinstance(error, requests.exceptions.SSLError) and _IS_PLAIN_HTTP.search(str(error)):
        return "it does not speak https there; use http://"
    cause: BaseException | None = error
    message = "the connection broke"
    # An SdeError in the chain is an error that the caller was handling, not the cause of this one.
    while cause is not None and not isinstance(cause, SdeError):
        if isinstance(cause, OSError) and cause.strerror:
            message = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return message
