"""Lists the dialects: their routes, and the forms of their errors."""

from __future__ import annotations

from typing import Any

import falcon

from gateway.dialects.automatic1111 import routes as automatic1111
from gateway.dialects.openai import errors as openai_errors
from gateway.dialects.openai import routes as openai
from gateway.http.error_shapes import ErrorShapes
from gateway.services import Services

ERROR_SHAPES = ErrorShapes({**automatic1111.SHAPES, openai.PREFIX: openai_errors.shape})
"""The beginnings of the dialects' paths, and how their errors are written."""


def add_routes(app: falcon.App[Any, Any], services: Services, max_body_bytes: int) -> None:
    """Add the routes of all dialects.

    Args:
        max_body_bytes: a larger body is refused with 413.
    """
    automatic1111.add_routes(app, services, max_body_bytes)
    openai.add_routes(app, services, max_body_bytes)
