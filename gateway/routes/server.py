"""Resources under /server: version 1's status, the workers, the storage; and /healthz."""

from __future__ import annotations

from typing import Any

import falcon
import orjson

from gateway.jobs.broker import Broker
from gateway.jobs.journal import Journal
from gateway.store.disk_space import DiskSpace
from gateway.store.index_db import IndexDb
from gateway.store.result_index import ResultIndex
from gpu_worker.contract.protocol import WorkerStatus
from gpu_worker.store import segments

_MEMBERS = (
    *("boot_id", "model", "loaded", "load_error", "device", "dtype", "machine_size"),
    *("memory_bytes", "versions", "uuid", "step", "steps", "step_s"),
    *("log", "committed", "trouble"),
)
"""The members of a worker after its name and state; uuid, step and steps are its first job's."""


def worker_view(name: str, status: WorkerStatus | None) -> dict[str, Any]:
    """Return a worker as GET /server/workers shows it; of a silent one, all else is null."""
    slot = status.slots[0] if status and status.slots else None
    first_job = {
        "uuid": slot.uuid if slot else None,
        "step": slot.step if slot else 0,
        "steps": slot.steps if slot else 0,
    }
    members = {**dict(status), **first_job} if status else {}
    return {
        "worker": name,
        "name": name,
        "state": status.state if status else "unreachable",
        **{member: members.get(member) for member in _MEMBERS},
    }


class StatusResource:
    """GET /server/status: the one key of version 1."""

    def __init__(self, broker: Broker, storage: DiskSpace) -> None:
        self._broker = broker
        self._storage = storage

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer `{"is_available": bool}`."""
        available = self._broker.available() and self._storage.trouble() is None
        resp.data = orjson.dumps({"is_available": available})


class WorkersResource:
    """GET /server/workers: the last status of each worker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with an array. A worker that does not answer is `unreachable`."""
        resp.data = orjson.dumps(
            [worker_view(name, status) for name, status in self._broker.workers().items()]
        )


class StorageResource:
    """GET /server/storage: the result log and its disk."""

    def __init__(self, index: ResultIndex, journal: Journal, storage: DiskSpace) -> None:
        self._index = index
        self._journal = journal
        self._storage = storage

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with counts and bytes. `trouble` says why no job is accepted, or is null."""
        totals = self._index.query(IndexDb.totals)
        resp.data = orjson.dumps(
            {
                "results": totals.results,
                "size_bytes": totals.live_bytes,
                "segments": len(segments.live_segments(self._index.directory)),
                "damaged_lines": totals.damaged_lines + self._journal.damaged_lines,
                "free_bytes": self._storage.free_bytes(),
                "trouble": self._storage.trouble(),
            }
        )


class HealthResource:
    """GET /healthz: shows that this process answers. It asks no worker."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer `{"status": "ok"}`."""
        resp.data = orjson.dumps({"status": "ok"})
