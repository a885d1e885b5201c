"""/server/session: who sends the request, and the cookie of a web page's session."""

from __future__ import annotations

import falcon
import orjson

from gateway.access.authentication import secret_of
from gateway.access.rules import AccessRules, cookie_value
from gateway.access.sessions import LIFE_S
from gateway.http.access_control import principal


class SessionResource:
    """The session of a browser, whose images and event streams cannot send an Authorization."""

    def __init__(self, rules: AccessRules) -> None:
        self._rules = rules

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer `{"key": name or null, "scopes": [...], "key_required": bool}`."""
        sender = principal(req)
        resp.data = orjson.dumps(
            {
                "key": sender.name,
                "scopes": sorted(sender.scopes),
                "key_required": self._rules.authentication.needs_key(),
            }
        )

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Begin a session of the key in the Authorization header, as a cookie; answer 204."""
        secret = secret_of(req.auth)
        key = None if secret is None else self._rules.keyring.match(secret)
        if key is not None and key.name == principal(req).name:
            resp.set_cookie(
                self._rules.cookie,
                self._rules.sessions.begin(key),
                max_age=LIFE_S,
                path=req.root_path or "/",
                secure=req.scheme == "https",
                http_only=True,
                same_site="Strict",
            )
        resp.status = falcon.HTTP_NO_CONTENT

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        """End the session and remove its cookie; answer 204. It needs no key."""
        token = cookie_value(req.get_header("Cookie") or "", self._rules.cookie)
        if token is not None:
            self._rules.sessions.end(token)
        resp.unset_cookie(self._rules.cookie, path=req.root_path or "/", same_site="Strict")
        resp.status = falcon.HTTP_NO_CONTENT
