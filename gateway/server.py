"""Resources under /server: the seed's status, and the workers; /healthz for process watchers."""

from __future__ import annotations

import falcon
import orjson

from gateway.broker import Broker


class StatusResource:
    """GET /server/status: the seed's one key and nothing else."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """`{"is_available": bool}`."""
        resp.data = orjson.dumps({"is_available": self._broker.available()})


class WorkersResource:
    """GET /server/workers: each worker's last word."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """An array; a worker that does not answer is `unreachable`, and all else is null."""
        shown = ("model", "device", "dtype", "machine_size", "uuid", "step", "steps", "step_s")
        resp.data = orjson.dumps(
            [
                {
                    "name": name,
                    "state": status.state if status else "unreachable",
                    **{key: getattr(status, key, None) for key in shown},
                }
                for name, status in self._broker.workers().items()
            ]
        )


class HealthResource:
    """GET /healthz: this process answers. It asks no worker."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """`{"status": "ok"}`."""
        resp.data = orjson.dumps({"status": "ok"})
