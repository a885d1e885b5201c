"""What a client sent, checked: uuid, JSON body, query parameters, headers. Never becomes a path."""

from __future__ import annotations

import uuid as uuids

import falcon
import orjson

PLAIN_BODY_BYTES = 1 << 20
MAX_SEPARATORS = 20_000
"""In a larger body: what is large is its pictures, and lists of nothing would fill the memory."""

MAX_KEY_CHARS = 255
JSON = "application/json"


def bad(where: str, value: str | None, why: str) -> falcon.HTTPBadRequest:
    """400 that names the field and its value."""
    shown = ascii(value)[:80]
    return falcon.HTTPBadRequest(title="Invalid request", description=f"{where}: {shown} {why}")


def parse_uuid(text: str, where: str) -> str:
    """The canonical form; a client's string never reaches a path.

    Raises:
        falcon.HTTPBadRequest: it is no uuid.
    """
    try:
        return str(uuids.UUID(text))
    except ValueError:
        raise bad(where, text, "is not a uuid") from None


def known_params(req: falcon.Request, *names: str) -> None:
    """Raises falcon.HTTPBadRequest when the query has another parameter, or one twice."""
    for name, value in req.params.items():
        if name not in names:
            raise bad("query", name, f"is not a known parameter; known are {', '.join(names)}")
        if not isinstance(value, str) and name != "generation_uuid":
            raise bad(name, str(value), "is given twice")


def uuid_param(req: falcon.Request, name: str) -> str | None:
    """A uuid from the query; None when it is not there."""
    if name not in req.params:
        return None
    return parse_uuid(",".join(req.get_param_as_list(name) or [""]), name)


def number_param(
    req: falcon.Request, name: str, default: float, low: float, high: float, whole: bool = True
) -> float:
    """A number from the query. Raises falcon.HTTPBadRequest."""
    text = req.get_param(name)
    if text is None:
        return default
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise bad(name, text, f"is not {kind} from {low:g} to {high:g}")
    return value


def truth_param(req: falcon.Request, name: str, default: bool) -> bool:
    """`true` or `false` from the query. Raises falcon.HTTPBadRequest."""
    text = req.get_param(name)
    if text is None:
        return default
    if text not in ("true", "false"):
        raise bad(name, text, "is neither true nor false")
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
        raise bad("Idempotency-Key", key, why)
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


def too_large(sentence: str) -> falcon.HTTPContentTooLarge:
    """413."""
    return falcon.HTTPContentTooLarge(title="Too large", description=sentence)


def json_body(req: falcon.Request, limit_bytes: int) -> object:
    """The request's JSON; any other content type is refused, also none: a form on a foreign page
    could send those (cross-site request forgery).

    Raises:
        falcon.HTTPError: 415, 413 or 400.
    """
    kind = (req.content_type or "").partition(";")[0].strip().lower()
    if kind != JSON:
        said = f"got {ascii(req.content_type)[:80]}" if req.content_type else "none was sent"
        raise falcon.HTTPUnsupportedMediaType(
            title="Unsupported media type", description=f"Content-Type must be {JSON}; {said}"
        )
    body = req.bounded_stream.read(limit_bytes + 1)
    if len(body) > limit_bytes:
        raise too_large(f"a request has at most {limit_bytes} bytes")
    if len(body) > PLAIN_BODY_BYTES and sum(map(body.count, (b",", b"[", b"{"))) > MAX_SEPARATORS:
        raise too_large(f"a request without its pictures has at most {PLAIN_BODY_BYTES} bytes")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise falcon.HTTPBadRequest(
            title="Broken JSON", description=f"the body is not valid JSON: {error}"
        ) from None
