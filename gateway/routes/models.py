"""Resources under /server/models: the models, and which of them is in memory.

Only the dispatcher's thread speaks to a worker, never these resources.
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
from gpu_worker.contract.protocol import ModelCommand, WorkerState, WorkerStatus


class ModelsResource:
    """GET /server/models."""

    def __init__(self, capabilities: WorkerCapabilities) -> None:
        self._capabilities = capabilities

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the description, or 503 before a worker has sent one."""
        resp.data = orjson.dumps(self._capabilities.description().model_dump())


class ModelCommandResource:
    """POST /server/models/{name}/load and /unload: 202; GET /server/workers shows the result."""

    def __init__(
        self, capabilities: WorkerCapabilities, broker: Broker, commands: dict[str, CommandQueue]
    ) -> None:
        self._capabilities = capabilities
        self._broker = broker
        self._commands = commands

    def on_post_load(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Have the first idle worker that knows the model load it. Jobs wait until it is loaded."""
        self._send(resp, ModelCommand(name), self._reachable(req, name), name)

    def on_post_unload(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Have the first idle worker that has the model unload it."""
        reachable = self._reachable(req, name)
        holders = {worker: status for worker, status in reachable.items() if status.loaded == name}
        if not holders:
            raise NotLoaded(f"no worker has the model {name} loaded")
        self._send(resp, ModelCommand(unload=True), holders, name)

    def _reachable(self, req: falcon.Request, name: str) -> dict[str, WorkerStatus]:
        """Return the workers that know the model and answer.

        Raises:
            UnknownModel, NotDescribed, NoWorker: there is none.
        """
        same_origin(req)
        statuses = self._broker.workers()
        candidates = [(worker, statuses[worker]) for worker in self._capabilities.workers_of(name)]
        reachable = {worker: status for worker, status in candidates if status is not None}
        if not reachable:
            raise NoWorker(retry_after_s=5)
        return reachable

    def _send(
        self,
        resp: falcon.Response,
        command: ModelCommand,
        workers: dict[str, WorkerStatus],
        name: str,
    ) -> None:
        idle = [worker for worker, status in workers.items() if status.state is WorkerState.IDLE]
        if not idle:
            state = next(iter(workers.values())).state
            raise WorkerBusy(f"the worker is {state}; ask for {name} again when it is idle")
        status = self._commands[idle[0]].submit(command)
        resp.status = falcon.HTTP_ACCEPTED
        resp.data = orjson.dumps(worker_view(idle[0], status))
