"""Checks what a client sends beside the body: uuids, query parameters, headers.

A client's string never becomes a path.
"""

from __future__ import annotations

import re
import uuid as uuids

import falcon

MAX_KEY_CHARS = 255
JSON = "application/json"

# Python's int(), float() and UUID() accept more than is meant: `1_0`, spaces, other scripts.
_WHOLE = re.compile(r"[0-9]{1,15}")
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{0,15})?([eE][-+]?[0-9]{1,3})?")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}")


def invalid_parameter(field: str, value: str | None, reason: str) -> falcon.HTTPBadRequest:
    """Return a 400 that names the field and its value."""
    text = ascii(value)[:80]
    return falcon.HTTPBadRequest(title="Invalid request", description=f"{field}: {text} {reason}")


def missing_parameter(where: str, what: str) -> falcon.HTTPBadRequest:
    """Return a 400 for a required parameter that is missing."""
    return falcon.HTTPBadRequest(
        title="Invalid request", description=f"{where}: is missing; send {what}"
    )


def parse_uuid(text: str, where: str) -> str:
    """Return the canonical form, so that a client's string never reaches a path.

    Raises:
        falcon.HTTPBadRequest: the text is not a uuid.
    """
    if _UUID.fullmatch(text) is None:
        raise invalid_parameter(where, text, "is not a uuid")
    return str(uuids.UUID(text))


class QueryValidator:
    """Middleware that refuses unknown and repeated query parameters on every route.

    A resource names its parameters in `query`, by method. Without `query` it has none. One with
    `takes_any_query` ignores those that it does not know, as the program whose API it has does.
    """

    def process_resource(
        self, req: falcon.Request, resp: falcon.Response, resource: object, params: object
    ) -> None:
        """Check the query of a request. Raises falcon.HTTPBadRequest."""
        if getattr(resource, "takes_any_query", False):
            return
        method = "GET" if req.method == "HEAD" else req.method
        names = getattr(resource, "query", {}).get(method, ())
        for name, value in req.params.items():
            if name not in names:
                if not any(each.startswith(f"on_{method.lower()}") for each in dir(resource)):
                    return  # falcon refuses the method
                hint = f"the parameters are {', '.join(names)}" if names else "this route has none"
                raise invalid_parameter("query", name, f"is not a known parameter; {hint}")
            if not isinstance(value, str):
                raise invalid_parameter(name, ",".join(value), "is sent more than once")


def uuid_param(req: falcon.Request, name: str) -> str | None:
    """Return a uuid from the query; None when it is not sent."""
    text = req.get_param(name)
    return None if text is None else parse_uuid(text, name)


def number_param(
    req: falcon.Request, name: str, default: float, low: float, high: float, whole: bool = True
) -> float:
    """Return a number from the query, in ASCII digits. Raises falcon.HTTPBadRequest."""
    text = req.get_param(name)
    if text is None:
        return default
    formed = (_WHOLE if whole else _NUMBER).fullmatch(text)
    if formed is None or not low <= float(text) <= high:
        kind = "a whole number" if whole else "a number"
        raise invalid_parameter(name, text, f"is not {kind} from {low:g} to {high:g}")
    return float(text)


def bool_param(req: falcon.Request, name: str, default: bool) -> bool:
    """Return `true` or `false` from the query. Raises falcon.HTTPBadRequest."""
    text = req.get_param(name)
    if text is None:
        return default
    if text not in ("true", "false"):
        raise invalid_parameter(name, text, "is neither true nor false")
    return text == "true"


def idempotency_key(req: falcon.Request) -> str | None:
    """Return the header's value (draft-ietf-httpapi-idempotency-key-header), None without it.

    Raises:
        falcon.HTTPBadRequest: it is empty, too long, or not printable ASCII.
    """
    key = req.get_header("Idempotency-Key")
    if key is None:
        return None
    if not (0 < len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable()):
        why = f"is not a key of 1 to {MAX_KEY_CHARS} printable ASCII characters"
        raise invalid_parameter("Idempotency-Key", key, why)
    return key
