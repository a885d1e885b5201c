"""Resources under /server: version 1's status, the workers, the storage; and /openapi.json."""

from __future__ import annotations

from typing import Any

import falcon
import orjson

from gateway.jobs.broker import Broker
from gateway.jobs.journal import Journal
from gateway.jobs.worker_table import state_of, step_age_s
from gateway.store.disk_space import DiskSpace
from gateway.store.index_db import IndexDb
from gateway.store.result_index import ResultIndex
from gpu_worker.contract.protocol import WorkerStatus
from gpu_worker.contract.validation_errors import error_text
from gpu_worker.store import segments
from gpu_worker.store.exit_report import ExitReport

_MEMBERS = (
    *("boot_id", "model", "loaded", "load_error", "device", "dtype", "machine_size"),
    *("memory_bytes", "gpu_memory_bytes", "gpu_memory_total_bytes", "versions"),
    *("uuid", "step", "steps", "step_s", "step_age_s"),
    *("log", "committed", "trouble"),
)
"""The members of a worker after its name and state; uuid, step and steps are its first job's."""


def worker_view(
    name: str,
    status: WorkerStatus | None,
    report: ExitReport,
    mismatch: str | None,
) -> dict[str, Any]:
    """Return a worker as GET /server/workers shows it; of a silent one, most is null.

    Args:
        report: how its process ended last.
        mismatch: why the worker cannot be used although it answers, or None.
    """
    members = {**dict(status), **_first_job(status)} if status else {}
    present_error = members.get("load_error") or mismatch
    return {
        "worker": name,
        "name": name,
        "state": state_of(status, report),
        **{member: members.get(member) for member in _MEMBERS},
        "last_error": present_error or _sentence(report.reason),
        "last_error_time": None if present_error else report.time,
        "restarts": report.restarts,
    }


def _first_job(status: WorkerStatus) -> dict[str, Any]:
    if not status.slots:
        return {"uuid": None, "step": 0, "steps": 0, "step_age_s": None}
    slot = status.slots[0]
    age_s = step_age_s(slot)
    return {
        "uuid": slot.uuid,
        "step": slot.step,
        "steps": slot.steps,
        "step_age_s": None if age_s is None else round(age_s, 3),
    }


def _sentence(reason: str | None) -> str | None:
    return None if reason is None else error_text(reason)


class StatusResource:
    """GET /server/status: the one key of version 1."""

    def __init__(self, broker: Broker, storage: DiskSpace) -> None:
        self._broker = broker
        self._storage = storage

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer `{"is_available": bool}`."""
        available = self._broker.available() and self._storage.trouble() is None
        resp.data = orjson.dumps({"is_available": available})


def worker_views(broker: Broker) -> list[dict[str, Any]]:
    """Return the array of GET /server/workers."""
    exits, mismatches = broker.exits(), broker.mismatches()
    return [
        worker_view(name, status, exits[name], mismatches.get(name))
        for name, status in broker.workers().items()
    ]


class WorkersResource:
    """GET /server/workers: the last status of each worker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with an array.

        A worker that does not answer is `unreachable`, and `failed` if it cannot be started.
        """
        resp.data = orjson.dumps(worker_views(self._broker))


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


class OpenApiResource:
    """GET /openapi.json: one document, which does not change while the process runs."""

    def __init__(self, document: dict[str, object]) -> None:
        self._content = orjson.dumps(document)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the document."""
        resp.data = self._content
