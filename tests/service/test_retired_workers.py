"""Fewer GPUs, and then more: a job that another worker was given is not run again."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

from gateway.assembly import assemble
from gateway.jobs.journal import Journal
from gateway.settings import GatewaySettings
from gpu_worker.store import process
from gpu_worker.store.in_flight import InFlight, InFlightJob
from tests.support.journal_jobs import job
from tests.support.service import Service, eventually, running


def store(folder: Path) -> tuple[GatewaySettings, InFlight]:
    """Of three accepted jobs the first two were given away; gpu-1 has begun the second."""
    settings = GatewaySettings.model_validate({"SDE_DATA_DIR": folder})
    for path in (settings.results_dir, settings.inputs_dir, settings.run_dir):
        path.mkdir(parents=True)
    journal = Journal(settings.journal_path)
    journal.open()
    for number in range(3):
        journal.accept(job(number))
    for number in range(2):
        journal.dispatch(job(number).uuid, f"gpu-{number}")
    note = InFlight(settings.results_dir, "gpu-1")
    note.write(InFlightJob(attempt=1, job=job(1)))
    return settings, note


def states(settings: GatewaySettings, *workers: str) -> list[str]:
    endpoints = {worker: f"ipc://{settings.run_dir / worker}" for worker in workers}
    broker = assemble(settings, endpoints).services.broker
    return [broker.view(job(number).uuid).state for number in range(3)]


def test_what_a_worker_that_is_gone_has_begun_is_taken_back(tmp_path: Path) -> None:
    settings, note = store(tmp_path)
    assert states(settings, "gpu-0", "gpu-1") == ["running", "running", "queued"]
    assert note.read() != []
    assert states(settings, "gpu-0") == ["running", "queued", "queued"]
    assert note.read() == []


def test_a_worker_that_runs_all_the_same_keeps_its_job(tmp_path: Path) -> None:
    settings, note = store(tmp_path)
    with process.lock(settings.results_dir / "gpu-1.lock", "the store"):
        assert states(settings, "gpu-0") == ["running", "running", "queued"]
    assert note.read() != []


def test_a_note_of_a_job_that_nobody_knows_is_left(tmp_path: Path) -> None:
    settings, note = store(tmp_path)
    note.write(InFlightJob(attempt=1, job=job(9)))
    assert states(settings, "gpu-0") == ["running", "queued", "queued"]
    assert note.read() != []


def started(service: Service, gpus: int) -> None:
    service.settings["SDE_GPUS"] = str(gpus)
    service.start("supervisor")
    service.wait_answering()


def test_fewer_gpus_and_then_more_run_no_job_twice(folder: Path) -> None:
    with running(
        folder,
        "supervisor",
        SDE_PIPELINE="tests.pipelines.held:load",
        SDE_GPUS="2",
        SDE_QUEUE_SIZE="9",
    ) as service:

        def idle() -> bool:
            return [w["state"] for w in service.get("/server/workers").json()] == ["idle"] * 2

        eventually(idle, "both are there")
        uuids = [service.submit(num_inference_steps=2) for _ in range(2)]
        for uuid in uuids:
            service.wait_step(uuid)
        for gpus in (1, 2):
            service.kill("supervisor", signal.SIGKILL)
            eventually(lambda: not service.processes(), "all have left")
            service.release()
            started(service, gpus)
            for uuid in uuids:
                assert service.result(uuid)["errors"] == []
        eventually(idle, "nobody has anything left to do")
        assert Counter(line["uuid"] for line in service.lines()) == dict.fromkeys(uuids, 1)
