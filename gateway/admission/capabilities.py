"""What the workers have said that they can do, and whether a request is within it. Knows no HTTP.

Thread-safe: the dispatchers learn, HTTP threads check. The description: docs/http-api.md.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from gateway.admission import model_check
from gateway.admission.model_check import Description, join_names
from gateway.errors import NotDescribed, UnknownModel, UnsupportedField
from gpu_worker.contract.protocol import WorkerStatus
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.contract.validation_errors import display_value

LATENT = "latent"
"""The upscaler that needs no model."""


class WorkerCapabilities:
    """The last description of each worker. An empty one refuses nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: dict[str, tuple[tuple[str, int], Description]] = {}

    def lacks(self, worker: str, status: WorkerStatus) -> bool:
        """Whether the worker could say something that it has not said yet."""
        with self._lock:
            known = self._said.get(worker)
            return status.described > 0 and (known is None or known[0] != _version(status))

    def learn(self, worker: str, status: WorkerStatus, description: Description | None) -> None:
        """A worker has described itself, or could not."""
        with self._lock:
            self._said[worker] = (_version(status), description or {})

    def description(self) -> Description:
        """What the first worker that has said something can do.

        Raises:
            NotDescribed: none has.
        """
        for description in self._known():
            return description
        raise NotDescribed("no worker has said yet what it can do; it does once it has loaded")

    def workers_of(self, model: str) -> list[str]:
        """Those that know a model.

        Raises:
            NotDescribed: no worker has said anything.
            UnknownModel: none of them knows it.
        """
        with self._lock:
            said = {name: description for name, (_, description) in self._said.items()}
        known = [name for name, description in said.items() if model in _models(description)]
        if not known:
            names = {name: None for each in self._known() for name in _models(each)}
            if not names:
                self.description()
            raise UnknownModel(
                f"no model is called {display_value(model)}; there are: {join_names(names)}"
            )
        return known

    def check(self, request: GenerationRequest) -> None:
        """Whether one of the workers could do it.

        Raises:
            UnsupportedField: none could; it says what the first one takes.
        """
        refusals = []
        for description in self._known():
            try:
                _check(request, description)
            except UnsupportedField as refusal:
                refusals.append(refusal)
            else:
                return
        if refusals:
            raise refusals[0]

    def _known(self) -> Iterator[Description]:
        with self._lock:
            said = [description for _, description in self._said.values()]
        return (description for description in said if description)


def _version(status: WorkerStatus) -> tuple[str, int]:
    return status.boot_id, status.described


def _models(description: Description) -> dict[str, Any]:
    return dict(description.get("models", {}))


def _check(request: GenerationRequest, description: Description) -> None:
    """Raises UnsupportedField."""
    _check_names(request, description)
    models = _models(description)
    name = request.model or description.get("default")
    if request.model is not None and models and request.model not in models:
        raise UnsupportedField(
            "model", name, f"no model is called so; there are: {join_names(models)}"
        )
    model = models.get(name or "")
    if not model or request.upscale is not None:  # for which no model is needed
        return
    if model.get("error"):
        raise UnsupportedField("model", name, f"it cannot be loaded: {model['error']}")
    who = f"the model {name} ({model.get('pipeline') or 'pipeline'})"
    model_check.check(request, who, model, description.get("schedulers") or {})


def _check_names(request: GenerationRequest, description: Description) -> None:
    """Names of models.toml, each in the list of its kind."""
    adapter = request.ip_adapter
    named: list[tuple[str, str | None, str]] = [
        *((f"loras.{i}.name", lora.name, "loras") for i, lora in enumerate(request.loras)),
        *((f"embeddings.{i}", name, "embeddings") for i, name in enumerate(request.embeddings)),
        *(
            (f"controlnets.{i}.name", net.name, "controlnets")
            for i, net in enumerate(request.controlnets)
        ),
        ("ip_adapter.name", adapter.name if adapter else None, "ip_adapters"),
        ("vae", request.vae, "vaes"),
        ("refiner.name", request.refiner.name if request.refiner else None, "refiners"),
        ("hires.upscaler", request.hires.upscaler if request.hires else None, "upscalers"),
        ("upscale.upscaler", request.upscale.upscaler if request.upscale else None, "upscalers"),
    ]
    for field, name, kind in named:
        known = description.get(kind)
        if name is None or known is None:
            continue
        if kind == "upscalers":
            others = [each for each in known if each != LATENT]
            known = [LATENT, *others] if field.startswith("hires") else others
        if name not in known:
            raise UnsupportedField(field, name, _no_such(kind, name, known, description))


def _no_such(kind: str, name: str, known: list[str], description: Description) -> str:
    broken = description.get("errors", {}).get(kind, {}).get(name)
    if broken is not None:
        return f"it cannot be used: {broken}"
    return f"none of the {kind} is called so; there are: {join_names(known)}"
