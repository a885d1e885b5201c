"""Writes the problems of a dialect's paths in that dialect's own form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import falcon
import orjson

from gateway.http.problems import PROBLEM_JSON

BEARER = 'Bearer realm="sde"'
"""The challenge of a 401 (RFC 6750, section 3). `Basic` would make browsers ask for a password."""


@dataclass(frozen=True)
class ErrorForm:
    """How an error is answered: its status, the type and bytes of its body, and more headers."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


Shape = Callable[[Mapping[str, Any]], ErrorForm]
"""Returns the form of a problem document (RFC 9457)."""


def native(problem: Mapping[str, Any]) -> ErrorForm:
    """Return the problem document itself, which every path has that belongs to no dialect."""
    return ErrorForm(int(problem["status"]), PROBLEM_JSON, orjson.dumps(problem))


class ErrorShapes:
    """Chooses the form of an error by the beginning of the path. As middleware it writes it.

    Args:
        shapes: maps a prefix such as /v1/ to the function that gives the form of its errors.
    """

    def __init__(self, shapes: Mapping[str, Shape] | None = None) -> None:
        self._shapes = shapes or {}

    def form(self, path: str, problem: Mapping[str, Any]) -> ErrorForm:
        """Return the form of a problem at this path."""
        prefixes = (prefix for prefix in self._shapes if path.startswith(prefix))
        form = self._shapes.get(next(prefixes, ""), native)(problem)
        if form.status != 401:
            return form
        return replace(form, headers={"WWW-Authenticate": BEARER, **form.headers})

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool
    ) -> None:
        """Rewrite a problem. Everything else stays as it is."""
        problem = getattr(resp.context, "problem", None)
        if problem is None:
            return
        form = self.form(req.path, problem)
        resp.status, resp.content_type, resp.data = form.status, form.content_type, form.body
        for name, value in form.headers.items():
            resp.set_header(name, value)
