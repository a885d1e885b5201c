"""Writes errors as the OpenAI API does, and defines those that only its routes have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.errors import RequestRefused
from gateway.http.error_shapes import ErrorForm
from gateway.http.params import JSON
from gateway.http.problems import TYPE_PREFIX

MODEL_NOT_FOUND = "Model not found"

_CODES = {
    "key-required": "invalid_api_key",
    "queue-full": "rate_limit_exceeded",
    "invalid-request": "invalid_value",
    "not-supported": "invalid_value",
}
"""The codes of OpenAI's servers, by our type of problem. Any other is our type itself."""

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

_REPEATABLE = frozenset({408, 429, 503})
"""The statuses after which the same request may succeed soon."""


class ModelNotFound(RequestRefused):
    """No model has the id in a request or a path."""

    status, title = 404, MODEL_NOT_FOUND

    @property
    def further(self) -> dict[str, Any]:
        """Return the name of the field."""
        return {"param": "model"}


class JobFailed(RequestRefused):
    """The job of a request has failed; the text gives the reason."""

    status, title = 500, "Job failed"


class JobCanceled(RequestRefused):
    """The job of a request was canceled, so it has no image. Its client must not send it again."""

    status, title = 410, "Job canceled"


def error_object(problem: Mapping[str, Any]) -> dict[str, str | None]:
    """Return a problem document as the API's error."""
    status = int(problem["status"])
    kind = str(problem["type"]).removeprefix(TYPE_PREFIX)
    others = "server_error" if status >= 500 else "invalid_request_error"
    return {
        "message": problem["detail"],
        "type": _TYPES.get(status, others),
        "param": _param(problem),
        "code": _CODES.get(kind, kind.replace("-", "_")),
    }


def shape(problem: Mapping[str, Any]) -> ErrorForm:
    """Return a problem as `{"error": {"message", "type", "param", "code"}}`."""
    status = int(problem["status"])
    headers = {}
    if status in (408, 409, 429) or status >= 500:  # the SDKs repeat these without a word
        headers["x-should-retry"] = "true" if status in _REPEATABLE else "false"
    body = orjson.dumps({"error": error_object(problem)})
    return ErrorForm(400 if status == 422 else status, JSON, body, headers)


def _param(problem: Mapping[str, Any]) -> str | None:
    """Return the field that is at fault; None if none is."""
    errors = problem.get("errors")
    if errors:
        return str(errors[0]["field"])
    param = problem.get("param")
    return None if param is None else str(param)
