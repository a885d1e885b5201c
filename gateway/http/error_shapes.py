"""Middleware that writes the problems of a dialect's paths in that dialect's own form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import falcon

Shape = Callable[[falcon.Request, falcon.Response, Mapping[str, Any]], None]
"""Rewrites a response whose problem document (RFC 9457) is the third argument."""


class ErrorShapes:
    """Chooses the form of an error by the beginning of the path.

    Args:
        shapes: maps a prefix such as /v1/ to the function that writes its errors.
    """

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self._shapes = shapes

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool
    ) -> None:
        """Rewrite a problem. Everything else stays as it is."""
        problem = getattr(resp.context, "problem", None)
        if problem is None:
            return
        for prefix, shape in self._shapes.items():
            if req.path.startswith(prefix):
                shape(req, resp, problem)
                return
