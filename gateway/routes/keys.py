"""/server/keys: lists, makes and revokes keys while the service runs. It needs the scope admin."""

from __future__ import annotations

import logging
from typing import Annotated, ClassVar, Literal

import falcon
import orjson
from pydantic import Field

from gateway.access.key_file import KeyFileInvalid
from gateway.access.keyring import Keyring
from gateway.access.keys import Name
from gateway.access.principal import Scope
from gateway.errors import StorageUnavailable
from gateway.http.access_control import principal
from gateway.http.json_body import json_body, validated
from gpu_worker.contract.request import Strict

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 4096

ScopeName = Literal["generate", "admin"]


class NewKey(Strict):
    """The name of a key and its scopes."""

    name: Name
    scopes: Annotated[list[ScopeName], Field(min_length=1, max_length=2)] = Field(["generate"])


class KeysResource:
    """GET and POST /server/keys."""

    scopes: ClassVar = {"GET": Scope.ADMIN, "POST": Scope.ADMIN}

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with an array of `{"name", "scopes", "created_time"}`, without secrets."""
        resp.data = orjson.dumps([key.public() for key in self._keyring.all()])

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Make a key; answer 201 with its name and, this one time, the key itself."""
        new = validated(NewKey, json_body(req, MAX_BODY_BYTES))
        try:
            secret = self._keyring.add(new.name, map(Scope, new.scopes))
        except OSError as error:
            raise StorageUnavailable.refusing("the key", error) from error
        except KeyFileInvalid as error:
            raise StorageUnavailable(str(error)) from error
        log.info("the key %s was made by %s", new.name, principal(req).name or "this machine")
        resp.status = falcon.HTTP_CREATED
        resp.set_header("Cache-Control", "no-store")
        resp.data = orjson.dumps({"name": new.name, "key": secret})


class KeyResource:
    """DELETE /server/keys/{name}."""

    scopes: ClassVar = {"DELETE": Scope.ADMIN}

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def on_delete(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Revoke the key; answer 204. It is invalid from the next request on."""
        try:
            self._keyring.revoke(name)
        except OSError as error:
            raise StorageUnavailable.refusing("the revocation", error) from error
        except KeyFileInvalid as error:
            raise StorageUnavailable(str(error)) from error
        log.info("the key %s was revoked by %s", name, principal(req).name or "this machine")
        resp.status = falcon.HTTP_NO_CONTENT
