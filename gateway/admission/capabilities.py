"""Keeps the workers' descriptions and checks requests against them. It knows no HTTP.

Thread-safe: the dispatchers update it, HTTP threads check requests.
"""

from __future__ import annotations

import threading

from gateway.errors import NotDescribed, UnknownModel
from gpu_worker.contract import checks
from gpu_worker.contract.capabilities import Capabilities
from gpu_worker.contract.protocol import WorkerStatus
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.contract.validation_errors import Unsupported, display_value

Version = tuple[str, int]
"""The version of a description: the worker's boot_id and its count of changes."""


class WorkerCapabilities:
    """The last description of each worker. An empty description refuses nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_worker: dict[str, tuple[Version, Capabilities]] = {}

    def is_outdated(self, worker: str, status: WorkerStatus) -> bool:
        """Return whether the worker has a newer description than this one."""
        with self._lock:
            entry = self._by_worker.get(worker)
            return status.described > 0 and (entry is None or entry[0] != _version(status))

    def update(self, worker: str, status: WorkerStatus, description: Capabilities | None) -> None:
        """Store a worker's description; None if the worker could not describe itself."""
        with self._lock:
            self._by_worker[worker] = (_version(status), description or Capabilities())

    def description(self) -> Capabilities:
        """Return the description of the first worker that has one.

        Raises:
            NotDescribed: no worker has described itself.
        """
        for description in self._described().values():
            return description
        raise NotDescribed(
            "no worker has described its models yet; a worker does so when it has loaded one"
        )

    def workers_of(self, model: str) -> list[str]:
        """Return the names of the workers that know a model.

        Raises:
            NotDescribed: no worker has described itself.
            UnknownModel: no worker knows it.
        """
        described = self._described()
        workers = [name for name, each in described.items() if model in each.models]
        if not workers:
            names = {name: None for each in described.values() for name in each.models}
            if not names:
                self.description()
            listed = checks.join_names(names)
            raise UnknownModel(
                f"no model has the name {display_value(model)}; the models are: {listed}"
            )
        return workers

    def check(self, request: GenerationRequest) -> None:
        """Check that at least one worker can do the request.

        Raises:
            Unsupported: no worker can; the error is the first worker's.
        """
        refusals = []
        for description in self._described().values():
            try:
                checks.check(request, description)
            except Unsupported as refusal:
                refusals.append(refusal)
            else:
                return
        if refusals:
            raise refusals[0]

    def _described(self) -> dict[str, Capabilities]:
        with self._lock:
            descriptions = {name: entry[1] for name, entry in self._by_worker.items()}
        return {name: each for name, each in descriptions.items() if not each.is_empty}


def _version(status: WorkerStatus) -> Version:
    return status.boot_id, status.described
