"""What a client sent, checked: uuid, query parameters, headers. Never becomes a path."""

from __future__ import annotations

import re
import uuid as uuids

import falcon

MAX_KEY_CHARS = 255
JSON = "application/json"

# Python's own int(), float() and UUID() take more than anyone means: `1_0`, spaces, other scripts.
_WHOLE = re.compile(r"[0-9]{1,15}")
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{0,15})?([eE][-+]?[0-9]{1,3})?")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32}")


def invalid_parameter(where: str, value: str | None, why: str) -> falcon.HTTPBadRequest:
    """400 that names the field and its value."""
    shown = ascii(value)[:80]
    return falcon.HTTPBadRequest(title="Invalid request", description=f"{where}: {shown} {why}")


def missing_parameter(where: str, what: str) -> falcon.HTTPBadRequest:
    """400 for a parameter that has to be there."""
    return falcon.HTTPBadRequest(
        title="Invalid request", description=f"{where} is missing: it is {what}"
    )


def parse_uuid(text: str, where: str) -> str:
    """The canonical form; a client's string never reaches a path.

    Raises:
        falcon.HTTPBadRequest: it is no uuid.
    """
    if _UUID.fullmatch(text) is None:
        raise invalid_parameter(where, text, "is not a uuid")
    return str(uuids.UUID(text))


class QueryValidator:
    """Middleware for every route: a query has the parameters that the resource knows, each once.

    A resource says so in `query`, names by method; one that says nothing takes none.
    """

    def process_resource(
        self, req: falcon.Request, resp: falcon.Response, resource: object, params: object
    ) -> None:
        """Raises falcon.HTTPBadRequest."""
        method = "GET" if req.method == "HEAD" else req.method
        known = getattr(resource, "query", {}).get(method, ())
        for name, value in req.params.items():
            if name not in known:
                which = f"known are {', '.join(known)}" if known else "none is taken here"
                raise invalid_parameter("query", name, f"is not a known parameter; {which}")
            if not isinstance(value, str):
                raise invalid_parameter(name, ",".join(value), "is given more than once")


def uuid_param(req: falcon.Request, name: str) -> str | None:
    """A uuid from the query; None when it is not there."""
    text = req.get_param(name)
    return None if text is None else parse_uuid(text, name)


def number_param(
    req: falcon.Request, name: str, default: float, low: float, high: float, whole: bool = True
) -> float:
    """A number from the query, of ASCII digits. Raises falcon.HTTPBadRequest."""
    text = req.get_param(name)
    if text is None:
        return default
    formed = (_WHOLE if whole else _NUMBER).fullmatch(text)
    if formed is None or not low <= float(text) <= high:
        kind = "a whole number" if whole else "a number"
        raise invalid_parameter(name, text, f"is not {kind} from {low:g} to {high:g}")
    return float(text)


def bool_param(req: falcon.Request, name: str, default: bool) -> bool:
    """`true` or `false` from the query. Raises falcon.HTTPBadRequest."""
    text = req.get_param(name)
    if text is None:
        return default
    if text not in ("true", "false"):
        raise invalid_parameter(name, text, "is neither true nor false")
    return text == "true"


def idempotency_key(req: falcon.Request) -> str | None:
    """The header's value (draft-ietf-httpapi-idempotency-key-header); None when it is not sent.

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


def same_origin(req: falcon.Request) -> None:
    """For a POST without a body, that any page could make a browser send: it says where from.

    Raises:
        falcon.HTTPForbidden: from a page of another host.
    """
    origin = req.get_header("Origin")
    if origin is not None and origin.partition("://")[2] != req.get_header("Host"):
        raise falcon.HTTPForbidden(
            title="Foreign page", description=f"a page of {ascii(origin)[:80]} may not ask this"
        )
