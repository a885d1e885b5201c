"""Middleware that admits a request: its host, its origin and its key, before any route."""

from __future__ import annotations

import itertools
from typing import Any

import falcon

from gateway.access.principal import Principal, Scope
from gateway.access.rules import AccessRules
from gateway.errors import KeyRequired

PUBLIC = frozenset(
    {
        *itertools.product(("GET", "HEAD"), ("", "/healthz", "/readyz")),
        ("DELETE", "/server/session"),
    }
)
"""Methods and paths without a key: the page, which asks for one, the probes of an orchestrator, and
the end of a session. They say nothing of jobs."""

PUBLIC_PREFIX = "/web/"
"""Begins the paths of the page's files."""

DIALECT_PREFIXES = ("/v1/", "/sdapi/")
"""Begin the paths that clients probe with OPTIONS and without their key."""

NOBODY = Principal(scopes=frozenset())
"""The sender of a public request without a key."""

CORS_METHODS = "GET, POST, DELETE"
CORS_HEADERS = ", ".join(
    (
        *("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-ID"),
        *("api-key", "X-SDE-On-Disconnect"),
        # Those of the OpenAI packages in a browser.
        *(f"x-stainless-{name}" for name in ("arch", "lang", "os", "package-version")),
        *(f"x-stainless-{name}" for name in ("retry-count", "runtime", "runtime-version")),
        "x-stainless-timeout",
    )
)
CORS_EXPOSED = ", ".join(
    (
        *("Link", "Location", "Retry-After", "X-Request-ID"),
        *("x-sde-generation-uuid", "x-sde-ignored", "x-should-retry"),
    )
)
CORS_MAX_AGE_S = "600"

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every response that a route does not replace (OWASP, HTTP Headers Cheat Sheet)."""


class AccessControl:
    """Refuses a request, or stores its sender as `req.context.principal`.

    A resource names the scope of a method in `scopes`; the default is `generate`.
    """

    def __init__(self, rules: AccessRules) -> None:
        self._rules = rules

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Check host, origin and key. Raises RequestRefused."""
        rules = self._rules
        is_forwarded = rules.check_host(req.env)
        rules.check_origin(req.env)
        is_preflight = self._is_preflight(req, resp, req.get_header("Origin"))
        try:
            req.context.principal = rules.sender(req.env, is_forwarded)
        except KeyRequired:
            if not is_preflight and not is_public(req.method, req.path):
                raise
            req.context.principal = NOBODY

    def process_resource(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        resource: object,
        params: dict[str, Any],
    ) -> None:
        """Check the scope of the route's method. Raises ScopeMissing."""
        if req.method == "OPTIONS" or is_public(req.method, req.path):
            return
        method = "GET" if req.method == "HEAD" else req.method
        scope = getattr(resource, "scopes", {}).get(method, Scope.GENERATE)
        principal(req).check_scope(scope)

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool
    ) -> None:
        """Add the headers that browsers obey."""
        for name, value in SECURITY_HEADERS.items():
            if resp.get_header(name) is None:
                resp.set_header(name, value)
        if resp.status_code == 401 and self._rules.cookie in req.cookies:  # it is stale
            resp.unset_cookie(self._rules.cookie, path=req.root_path or "/")
        origin = req.get_header("Origin")
        if origin is not None and self._rules.origins.is_allowed(origin):
            resp.set_header("Access-Control-Allow-Origin", origin)
            resp.set_header("Access-Control-Expose-Headers", CORS_EXPOSED)
            resp.set_header("Cross-Origin-Resource-Policy", "cross-origin")
            resp.append_header("Vary", "Origin")

    def _is_preflight(self, req: falcon.Request, resp: falcon.Response, origin: str | None) -> bool:
        """Answer a preflight of an admitted origin (Fetch, section 3.2.2)."""
        asks = req.method == "OPTIONS" and req.get_header("Access-Control-Request-Method")
        if not asks or not self._rules.origins.is_allowed(origin):
            return False
        resp.status = falcon.HTTP_NO_CONTENT
        resp.set_header("Access-Control-Allow-Methods", CORS_METHODS)
        resp.set_header("Access-Control-Allow-Headers", CORS_HEADERS)
        resp.set_header("Access-Control-Max-Age", CORS_MAX_AGE_S)
        resp.complete = True
        return True


def is_public(method: str, path: str) -> bool:
    """Return whether a request needs no key."""
    is_file = method in ("GET", "HEAD") and path.startswith(PUBLIC_PREFIX)
    is_probe = method == "OPTIONS" and path.startswith(DIALECT_PREFIXES)
    return is_file or is_probe or (method, path.rstrip("/")) in PUBLIC


def principal(req: falcon.Request) -> Principal:
    """Return the sender of a request that the middleware admitted."""
    sender: Principal = req.context.principal
    return sender
