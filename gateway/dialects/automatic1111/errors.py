"""Writes errors as AUTOMATIC1111's API does, and defines those that only it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import falcon
import orjson

from gateway.dialects.automatic1111.translation.target import their_name
from gateway.errors import InvalidRequest, RequestRefused
from gateway.http.error_shapes import ErrorForm
from gpu_worker.contract.validation_errors import MAX_ERRORS, Unsupported

CHALLENGE = 'Basic realm="sde"'
"""Their clients send a key as the password of any user (RFC 7617)."""

_KIND = "HTTPException"
"""Their clients expect this word, which is FastAPI's."""


class SamplerNotFound(RequestRefused):
    """No sampler has this name."""

    status, title = 400, "Sampler not found"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Sampler not found: {name[:80]!r}; GET /sdapi/v1/samplers lists their names"
        )


class UpscalerNotFound(RequestRefused):
    """No upscaler has this name."""

    status, title = 400, "Upscaler not found"

    def __init__(self, name: str, names: Iterable[str]) -> None:
        super().__init__(
            f"Upscaler not found: {name[:80]!r}; the upscalers are: {', '.join(names)}"
        )


class InitImageNotFound(RequestRefused):
    """An img2img request has no image."""

    status, title = 404, "Init image not found"

    def __init__(self) -> None:
        super().__init__("Init image not found: send init_images, a list with base64 of an image")


class GenerationFailed(RequestRefused):
    """The job has failed; the text is its error."""

    status, title = 500, "Generation failed"


class NotBuilt(RequestRefused):
    """The service does not have what this route is for."""

    status, title = 404, "Not found"


class FieldRefused(RequestRefused):
    """The service refuses fields of a request, which the text names by A1111's names.

    `errors` is as in a problem document of the service.
    """

    status, title = 422, "Invalid request"

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        self.errors = [
            {**each, "field": their_name(str(each["field"]))} for each in errors[:MAX_ERRORS]
        ]
        super().__init__("; ".join(f"{each['field']}: {each['message']}" for each in self.errors))

    @classmethod
    def of(cls, error: InvalidRequest | Unsupported) -> FieldRefused:
        """Return the refusal with A1111's names of the fields."""
        return cls(error.errors if isinstance(error, InvalidRequest) else [error.error])

    @property
    def further(self) -> dict[str, Any]:
        """Return the errors, one an invalid field."""
        return {"errors": self.errors}


def shape(problem: Mapping[str, Any]) -> ErrorForm:
    """Return a problem as `{"error", "detail", "body", "errors"}` of `api_middleware`."""
    status = int(problem["status"])
    body = orjson.dumps(
        {
            "error": _KIND,
            "detail": problem.get("detail", ""),
            "body": "",
            "errors": problem.get("errors") or problem.get("title", ""),
        }
    )
    headers = {"WWW-Authenticate": CHALLENGE} if status == 401 else {}
    return ErrorForm(status, falcon.MEDIA_JSON, body, headers)
