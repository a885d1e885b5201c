"""Admits requests for a signed URL of an image, which need no key and may come from any page."""

from __future__ import annotations

from typing import Any

import falcon

from gateway.dialects.openai.answers import SIGNED_IMAGES
from gateway.http.access_control import NOBODY, AccessControl


class SignedAccess(AccessControl):
    """The access control of the service, with these URLs beside its own public paths."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Check the host, and origin and key of all but these URLs. Raises RequestRefused.

        Whoever has the URL may have the image, so a page of another program may show it.
        """
        if not _is_signed(req):
            super().process_request(req, resp)
            return
        self._rules.check_host(req.env)
        req.context.principal = NOBODY

    def process_resource(
        self, req: falcon.Request, resp: falcon.Response, resource: object, params: dict[str, Any]
    ) -> None:
        """Check the scope of the route's method. Raises ScopeMissing."""
        if not _is_signed(req):
            super().process_resource(req, resp, resource, params)


def _is_signed(req: falcon.Request) -> bool:
    return req.method in ("GET", "HEAD") and req.path.startswith(f"{SIGNED_IMAGES}/")
