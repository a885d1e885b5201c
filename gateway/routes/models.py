"""Resources under /server/models: what can be asked for, and which model is in memory.

The worker is spoken to by its dispatcher's thread, never from here.
"""

from __future__ import annotations

import falcon
import orjson

from gateway.admission.capabilities import WorkerCapabilities
from gateway.errors import NotLoaded, NoWorker, WorkerBusy
from gateway.http.params import same_origin
from gateway.jobs.broker import Broker
from gateway.routes.server import worker_view
from gateway.workers.model_commands import CommandQueue
from gpu_worker.contract.protocol import WorkerStatus


class ModelsResource:
    """GET /server/models."""

    def __init__(self, capabilities: WorkerCapabilities) -> None:
        self._capabilities = capabilities

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The description; 503 before a worker has said it."""
        resp.data = orjson.dumps(self._capabilities.description().model_dump())


class ModelCommandResource:
    """POST /server/models/{name}/load and /unload: 202, and the worker says how it went."""

    def __init__(
        self, capabilities: WorkerCapabilities, broker: Broker, wishes: dict[str, CommandQueue]
    ) -> None:
        self._capabilities = capabilities
        self._broker = broker
        self._wishes = wishes

    def on_post_load(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """The first idle worker that knows the model loads it; jobs wait meanwhile."""
        self._answer(resp, name, self._there(req, name), name)

    def on_post_unload(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """The first idle worker that has the model lets go of it."""
        there = self._there(req, name)
        has = {worker: status for worker, status in there.items() if status.loaded == name}
        if not has:
            raise NotLoaded(f"no worker has the model {name} loaded")
        self._answer(resp, None, has, name)

    def _there(self, req: falcon.Request, name: str) -> dict[str, WorkerStatus]:
        """Workers that know the model and answer. Raises UnknownModel, NotDescribed, NoWorker."""
        same_origin(req)
        said = self._broker.workers()
        known = [(worker, said[worker]) for worker in self._capabilities.workers_of(name)]
        there = {worker: status for worker, status in known if status is not None}
        if not there:
            raise NoWorker(retry_after_s=5)
        return there

    def _answer(
        self,
        resp: falcon.Response,
        wanted: str | None,
        there: dict[str, WorkerStatus],
        name: str,
    ) -> None:
        idle = [worker for worker, status in there.items() if status.state == "idle"]
        if not idle:
            state = next(iter(there.values())).state
            raise WorkerBusy(f"the worker is {state}; ask for {name} when it is idle")
        status = self._wishes[idle[0]].ask(wanted)
        resp.status = falcon.HTTP_ACCEPTED
        resp.data = orjson.dumps(worker_view(idle[0], status))
