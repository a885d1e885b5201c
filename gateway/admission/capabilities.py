"""What the workers have described, and whether a request is within it. Knows no HTTP.

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
"""Of a description: the worker's boot_id and its count of changes."""


class WorkerCapabilities:
    """The last description of each worker. An empty one refuses nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_worker: dict[str, tuple[Version, Capabilities]] = {}

    def is_outdated(self, worker: str, status: WorkerStatus) -> bool:
        """Whether the worker could describe something that is not known here yet."""
        with self._lock:
            known = self._by_worker.get(worker)
            return status.described > 0 and (known is None or known[0] != _version(status))

    def update(self, worker: str, status: WorkerStatus, description: Capabilities | None) -> None:
        """Remember how a worker has described itself; None: it could not."""
        with self._lock:
            self._by_worker[worker] = (_version(status), description or Capabilities())

    def description(self) -> Capabilities:
        """The description of the first worker that has one.

        Raises:
            NotDescribed: none has.
        """
        for description in self._described().values():
            return description
        raise NotDescribed("no worker has said yet what it can do; it does once it has loaded")

    def workers_of(self, model: str) -> list[str]:
        """The workers that know a model.

        Raises:
            NotDescribed: no worker has described itself.
            UnknownModel: none of them knows it.
        """
        described = self._described()
        known = [name for name, each in described.items() if model in each.models]
        if not known:
            names = {name: None for each in described.values() for name in each.models}
            if not names:
                self.description()
            listed = checks.join_names(names)
            raise UnknownModel(f"no model is called {display_value(model)}; there are: {listed}")
        return known

    def check(self, request: GenerationRequest) -> None:
        """Check that one of the workers could do it.

        Raises:
            Unsupported: none could; it says what the first one takes.
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
            known = {name: description for name, (_, description) in self._by_worker.items()}
        return {name: each for name, each in known.items() if not each.is_empty}


def _version(status: WorkerStatus) -> Version:
    return status.boot_id, status.described
