"""Defines the capabilities of a worker, which are the JSON of GET /server/models.

docs/http-api.md describes every key. A key that is not set is left out of the JSON.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

WITH_CONTROLNETS = "+controlnets"
"""Ends a mode's name in `takes_by_mode`: what the mode takes while ControlNets lead it."""


class _Description(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _only_what_is_set(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if key in self.model_fields_set}


class SchedulerCapabilities(_Description):
    """The options of a scheduler class, and whether its steps take `eta`."""

    options: list[str]
    eta: bool


class EmbeddingCapabilities(_Description):
    """The word that stands for an embedding in a prompt, and the number of its vectors."""

    word: str
    vectors: int


class ModelDefaults(_Description):
    """The values of fields that a request does not set."""

    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    scheduler_options: dict[str, bool | int | float | str] = {}


class ModelCapabilities(_Description):
    """One model. None means that a value is unknown, and then nothing is refused because of it.

    `pipeline` is diffusers' class. `modes` are of txt2img, img2img and inpaint. `takes` are the
    fields that some mode takes, and `takes_by_mode` those of each mode. `strength` is the default
    of that field in each mode that has it. `schedulers` are class names, the model's own first.
    `vocabulary` names what a model of few words draws. `error` says why the model cannot be loaded.
    """

    source: str | None = None
    revision: str | None = None
    pipeline: str | None = None
    modes: list[str] | None = None
    takes: list[str] | None = None
    takes_by_mode: dict[str, list[str]] | None = None
    strength: dict[str, float] | None = None
    schedulers: list[str] | None = None
    weighted_prompts: bool | None = None
    defaults: ModelDefaults | None = None
    vocabulary: list[str] | None = None
    error: str | None = None
    loaded: bool = False

    def default(self, field: str) -> Any:
        """Return the model's default of a field; None if it has none."""
        return getattr(self.defaults, field, None)


class Capabilities(_Description):
    """The capabilities of one worker. Empty capabilities refuse nothing.

    `default` is the model of requests that name none. The lists hold the names in models.toml by
    kind; None means unknown. `embedding_words` has the words of the embeddings whose files are on
    this machine. `errors` gives the reason for each name that cannot be used, by kind.
    """

    default: str | None = None
    models: dict[str, ModelCapabilities] = {}
    loras: list[str] | None = None
    embeddings: list[str] | None = None
    controlnets: list[str] | None = None
    ip_adapters: list[str] | None = None
    vaes: list[str] | None = None
    upscalers: list[str] | None = None
    refiners: list[str] | None = None
    embedding_words: dict[str, EmbeddingCapabilities] = {}
    errors: dict[str, dict[str, str]] = {}
    schedulers: dict[str, SchedulerCapabilities] = {}
    models_error: str | None = None

    @property
    def is_empty(self) -> bool:
        """Return whether the worker could not describe itself."""
        return not self.model_fields_set
