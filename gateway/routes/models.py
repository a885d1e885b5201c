"""Resources under /server/models: the models, and which of them is in memory.

Only the dispatcher's thread speaks to a worker, never these resources.
"""

from __future__ import annotations

from typing import ClassVar

import falcon
import orjson

from gateway.access.principal import Scope
from gateway.admission.capabilities import WorkerCapabilities
from gateway.admission.submission_options import SubmissionOptions
from gateway.errors import NotLoaded, NoWorker, WorkerBusy
from gateway.jobs.broker import Broker
from gateway.routes.server import worker_view
from gateway.workers.model_commands import CommandQueue
from gpu_worker.contract.fields.field_table import fields_of
from gpu_worker.contract.fields.scheduler_names import aliases_for
from gpu_worker.contract.protocol import ModelCommand, WorkerState, WorkerStatus
from gpu_worker.contract.request import GenerationRequest


class ModelsResource:
    """GET /server/models."""

    def __init__(self, capabilities: WorkerCapabilities) -> None:
        self._capabilities = capabilities

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the description, or 503 before a worker has sent one."""
        description = self._capabilities.description()
        aliases = aliases_for(description.schedulers)
        resp.data = orjson.dumps({**description.model_dump(), "aliases": aliases})


class FieldsResource:
    """Serves what the models of a request declare: type, limits, default and help of each field.

    It asks no worker.
    """

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with an object by field."""
        resp.data = orjson.dumps(fields_of(GenerationRequest) | fields_of(SubmissionOptions))


class ModelCommandResource:
    """POST /server/models/{name}/load and /unload: 202; GET /server/workers shows the result."""

    scopes: ClassVar = {"POST": Scope.ADMIN}

    def __init__(
        self, capabilities: WorkerCapabilities, broker: Broker, commands: dict[str, CommandQueue]
    ) -> None:
        self._capabilities = capabilities
        self._broker = broker
        self._commands = commands

    def on_post_load(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Have the first idle worker that knows the model load it. Jobs wait until it is loaded."""
        self._send(resp, ModelCommand(name), self._reachable(name), name)

    def on_post_unload(self, req: falcon.Request, resp: falcon.Response, name: str) -> None:
        """Have the first idle worker that has the model unload it."""
        reachable = self._reachable(name)
        holders = {worker: status for worker, status in reachable.items() if status.loaded == name}
        if not holders:
            raise NotLoaded(f"no worker has the model {name} loaded")
        self._send(resp, ModelCommand(unload=True), holders, name)

    def _reachable(self, name: str) -> dict[str, WorkerStatus]:
        """Return the workers that know the model and answer.

        Raises:
            UnknownModel, NotDescribed, NoWorker: there is none.
        """
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
        resp.data = orjson.dumps(worker_view(idle[0], status, self._broker.exits()[idle[0]], None))
