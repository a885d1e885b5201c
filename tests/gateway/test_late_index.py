"""Fault 10 and row 21: what is written while the index cannot be is listed when it can be again."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from gateway.store.result_index import ResultIndex
from gpu_worker.contract.request import GenerationRequest
from tests.support.gateway_parts import Parts
from tests.support.service import running


def parts(folder: Path) -> Parts:
    for name in ("disk_backups", "inputs", "run"):
        (folder / name).mkdir(parents=True)
    return Parts(folder)


def queued(gateway: Parts, count: int) -> list[str]:
    from gpu_worker.contract.protocol import WorkerState, WorkerStatus

    busy = WorkerStatus(state=WorkerState.IDLE, boot_id="b", log="", committed=0, capacity=count)
    gateway.broker.observe("gpu-0", busy)
    jobs = [gateway.broker.reserve(GenerationRequest(prompt=str(n))) for n in range(count)]
    for job in jobs:
        gateway.journal.accept(job)
        gateway.broker.enqueue(job)
    return [job.uuid for job in jobs]


@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("database or disk is full"), OSError(5)]
)
def test_a_canceled_job_is_listed_once_the_index_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    gateway = parts(tmp_path)
    uuids = queued(gateway, 3)

    def refuses(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(ResultIndex, "refresh", refuses)
        for uuid in uuids:
            gateway.services.cancellation.cancel(uuid)
            assert gateway.view(uuid).state == "canceled"
            assert uuid in gateway.journal.pending
    assert not any(gateway.index.find(uuid) for uuid in uuids)
    gateway.dispatcher._round()  # no worker answers
    for uuid in uuids:
        entry = gateway.index.find(uuid)
        assert entry is not None and entry.state == "canceled"
        assert uuid not in gateway.journal.pending


@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("disk I/O error"), sqlite3.DatabaseError("x"), OSError(5)]
)
def test_a_cancellation_lasts_while_the_index_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The job goes back to the queue, and the dispatcher that takes it next ends it."""
    gateway = parts(tmp_path)
    (uuid,) = queued(gateway, 1)

    def refuses(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(ResultIndex, "has_outcome", refuses)
        gateway.services.cancellation.cancel(uuid)
    assert gateway.broker.queue_length() == 1 and uuid in gateway.journal.pending
    assert gateway.index.find(uuid) is None
    entry = gateway.broker.take("gpu-0")
    assert entry is not None and gateway.dispatcher._end_instead(entry)
    assert gateway.view(uuid).state == "canceled"
    assert gateway.index.find(uuid) is not None


HELD_BACK = """
import sqlite3, sys
from pathlib import Path
from gateway.store.result_index import ResultIndex
from gateway.__main__ import main

refresh = ResultIndex.refresh

def maybe(self, *arguments):
    if Path(sys.argv[1]).exists() and arguments[0].startswith("gateway"):
        raise sqlite3.OperationalError("database or disk is full")
    return refresh(self, *arguments)

ResultIndex.refresh = maybe
sys.exit(main())
"""


def test_it_needs_no_other_cancel_and_no_restart(folder: Path) -> None:
    """Fault 10, on the running service."""
    import sys

    from tests.support.service import eventually

    full = folder / "full"
    settings = {"SDE_QUEUE_SIZE": "4", "SDE_PIPELINE": "tests.pipelines.held:load"}
    with running(folder, **settings) as service:
        service.start("gateway", [sys.executable, "-c", HELD_BACK, str(full)])
        service.start("gpu_worker")
        service.wait_available()
        service.wait_step(service.submit("running"))
        waiting = service.submit("waiting")
        full.touch()
        import requests

        assert requests.delete(f"{service.url}/image/jobs/{waiting}", timeout=30).ok
        assert service.job(waiting)["state"] == "canceled"
        assert service.get("/image/generate").json() == []
        full.unlink()
        eventually(
            lambda: [each["uuid"] for each in service.get("/image/generate").json()] == [waiting],
            "the canceled job is listed",
        )
