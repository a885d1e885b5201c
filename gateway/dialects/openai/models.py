"""GET /v1/models and /v1/models/{id}, and what the id of a model in a request stands for."""

from __future__ import annotations

import re
import time
from typing import ClassVar

import falcon
import orjson

from gateway.admission.capabilities import WorkerCapabilities
from gateway.dialects.openai.errors import ModelNotFound
from gateway.dialects.openai.input.translation import GUIDANCE, TRUE_CFG
from gateway.errors import NotDescribed, UnknownModel
from gpu_worker.contract.validation_errors import display_value

DOOR = "openai"

OWNER = "stable-diffusion-environment"

_ALIAS = re.compile(r"dall-e-[23]|gpt-image-[A-Za-z0-9._-]{1,60}")
"""The ids of OpenAI's own models, which many programs cannot change."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""The form of a name in models.toml."""


class ModelIds:
    """The ids that a client may send: names in models.toml, and those of OpenAI's models.

    Args:
        aliases: whether an id of OpenAI's stands for the default model (SDE_OPENAI_ALIASES).
    """

    def __init__(self, capabilities: WorkerCapabilities, aliases: bool) -> None:
        self._capabilities = capabilities
        self._aliases = aliases
        self._began = int(time.time())

    def name_of(self, model: str | None) -> str | None:
        """Return the name in models.toml of a client's id; None for the default model.

        Before a worker has described itself, any name is accepted, and its job may fail.

        Raises:
            ModelNotFound: there is no such model.
        """
        if not model:
            return None
        try:
            if _NAME.fullmatch(model) is not None:
                self._capabilities.workers_of(model)
                return model
        except NotDescribed:
            return None if self._is_alias(model) else model
        except UnknownModel:
            pass
        if self._is_alias(model):
            return None
        raise ModelNotFound(f"model: no model has the id {display_value(model)}")

    def true_cfg_field(self, name: str | None) -> str:
        """Return our field that `true_cfg_scale` stands for.

        It is classifier-free guidance, which most models call `guidance_scale`. Models with both
        have another meaning for that.
        """
        try:
            about = self._capabilities.description()
        except NotDescribed:
            return GUIDANCE
        model = about.models.get(name or about.default or "")
        return TRUE_CFG if model is not None and TRUE_CFG in (model.takes or []) else GUIDANCE

    def names(self) -> list[str]:
        """Return the names of all models that can be used; none before a worker has any."""
        try:
            models = self._capabilities.description().models
        except NotDescribed:
            return []
        return [name for name, model in models.items() if model.error is None]

    def json(self, model: str) -> dict[str, object]:
        """Return a model as the API shows it."""
        return {"id": model, "object": "model", "created": self._began, "owned_by": OWNER}

    def _is_alias(self, model: str) -> bool:
        return self._aliases and _ALIAS.fullmatch(model) is not None


class ModelsResource:
    """Lists the models."""

    door: ClassVar = DOOR
    is_api: ClassVar = False
    takes_any_query: ClassVar = True

    def __init__(self, ids: ModelIds) -> None:
        self._ids = ids

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with every model that a request may name."""
        models = [self._ids.json(name) for name in self._ids.names()]
        resp.data = orjson.dumps({"object": "list", "data": models})


class ModelResource:
    """Shows one model. An id with a slash comes decoded."""

    door: ClassVar = DOOR
    is_api: ClassVar = False
    takes_any_query: ClassVar = True

    def __init__(self, ids: ModelIds) -> None:
        self._ids = ids

    def on_get(self, req: falcon.Request, resp: falcon.Response, model: str) -> None:
        """Answer with the model. Raises ModelNotFound."""
        self._ids.name_of(model)
        resp.data = orjson.dumps(self._ids.json(model))
