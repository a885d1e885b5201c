"""GET /healthz, /readyz and /metrics: what orchestrators and Prometheus ask. None asks a worker."""

from __future__ import annotations

import falcon
import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from gateway.access.principal import Scope
from gateway.errors import NotReady
from gateway.http.access_control import principal
from gateway.jobs.broker import Broker
from gateway.store.disk_space import DiskSpace
from gpu_worker.contract.protocol import WorkerState
from gpu_worker.contract.validation_errors import error_text


class HealthResource:
    """GET /healthz: shows that this process answers."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer `{"status": "ok"}`."""
        resp.data = orjson.dumps({"status": "ok"})


class ReadinessResource:
    """GET /readyz: shows whether a worker could take a job, now or after those that wait."""

    def __init__(self, broker: Broker, storage: DiskSpace) -> None:
        self._broker = broker
        self._storage = storage

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer `{"status": "ready"}`, or 503. A request without a key learns no reason."""
        reason = self._storage.trouble() or self._worker_reason()
        if reason is not None:
            may_read = Scope.GENERATE in principal(req).scopes
            raise NotReady(reason if may_read else "no worker can take a job")
        resp.data = orjson.dumps({"status": "ready"})

    def _worker_reason(self) -> str | None:
        statuses = self._broker.workers()
        if any(each and each.state is not WorkerState.LOADING for each in statuses.values()):
            return None
        for name, report in self._broker.exits().items():
            status = statuses[name]
            if status is not None and status.load_error:
                return f"{name} could not load its model: {status.load_error}"
            if status is None and report.reason is not None:
                return f"{name} does not answer: {error_text(report.reason)}"
        if any(statuses.values()):
            return "the workers are loading a model"
        return "no worker answers"


class MetricsResource:
    """GET /metrics in the text format of Prometheus."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with all metrics."""
        resp.content_type = CONTENT_TYPE_LATEST
        resp.cache_control = ["no-store"]
        resp.data = generate_latest(self._registry)
