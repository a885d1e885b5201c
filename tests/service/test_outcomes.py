"""Every job has an outcome, and it is its own: also where none can be written, or none comes."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests

from gateway.store.index_db import IndexDb
from gateway.store.result_index import ResultIndex
from gateway.workers.dispatcher import MAX_OFFERS
from gpu_worker import pipeline
from gpu_worker.assets.library_file import LibraryFile
from gpu_worker.contract import output_size, protocol
from gpu_worker.contract.job import Job
from gpu_worker.contract.protocol import SlotStatus, WorkerStatus
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.control.runner import Runner
from gpu_worker.control.server import ControlServer
from gpu_worker.control.slots import Slots
from gpu_worker.control.watchdog import StepWatchdog
from gpu_worker.pipeline_api import GeneratedImage, OnStep, Pipeline
from gpu_worker.store.in_flight import InFlight, note_paths
from gpu_worker.store.result_log import ResultLog
from tests.pipelines.instant import Instant
from tests.support import journal_jobs
from tests.support.pipeline_jobs import ignore, job, settings
from tests.support.service import DEADLINE_S, eventually, running

HELD = "tests.pipelines.held:load"


def runner_of(
    slots: Slots, log: ResultLog, folder: Path, made_by: Pipeline, stopping: Callable[[], bool]
) -> Runner:
    return Runner(
        slots,
        log,
        InFlight(folder, "gpu-0"),
        made_by,
        watchdog=StepWatchdog(60),
        max_attempts=2,
        stopping=stopping,
    )


def outcome(folder: Path, made_by: Pipeline, **asked: Any) -> list[dict[str, Any]]:
    """What the index serves of a job that a real runner has run."""
    log = ResultLog(folder / "disk_backups", "gpu-0")
    log.open()
    slots = Slots(log.position)
    runner = runner_of(slots, log, folder / "disk_backups", made_by, lambda: log.position[1] > 0)
    offered = threading.Thread(
        target=lambda: eventually(lambda: slots.offer(job(**asked)), "it is idle")
    )
    offered.start()
    runner.run()
    offered.join()
    index = ResultIndex(folder / "disk_backups")
    index.open(set())
    assert index.query(IndexDb.totals).damaged_lines == 0
    lines = [index.read(entry) for entry in index.find_all(job().uuid)]
    return [orjson.loads(line or b"null") for line in lines]


def test_a_record_that_no_reader_would_take_becomes_one_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_size, "MAX_LINE_BYTES", 1 << 20)
    asked = {"width": 1024, "height": 512, "num_images_per_prompt": 2, "num_inference_steps": 1}
    (record,) = outcome(tmp_path, Instant(), **asked)
    assert (record["state"], record["data"], record["num_images"]) == ("failed", None, 1)
    (sentence,) = record["errors"]
    assert "at most 1048576" in sentence and "smaller image" in sentence


def test_a_job_whose_model_cannot_be_loaded_is_recorded_as_its_own(tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "empty").mkdir(parents=True)
    index = pipeline.DEMO_MODEL / "model_index.json"
    shutil.copy(index, models / "empty" / index.name)
    (models / "models.toml").write_text("[models.bare]\nsource = 'empty'\n")
    ours = pipeline.load(settings(tmp_path))
    (record,) = outcome(tmp_path, ours, model="bare")
    assert (record["state"], record["model"]) == ("failed", "bare")
    assert record["torch"] and record["device"] == "cpu"
    for name in ("pipeline", "scheduler", "dtype"):
        assert name not in record, name


class LetGo(pipeline.DiffusersPipeline):
    """Its model goes right after each look at it: the worst that another thread can do."""

    goes = False

    @property
    def _loaded(self) -> Any:  # type: ignore[override]
        found = self.__dict__.get("held")
        if self.goes:
            self.__dict__["held"] = None
        return found

    @_loaded.setter
    def _loaded(self, loaded: Any) -> None:
        self.__dict__["held"] = loaded


@pytest.mark.parametrize(
    "look",
    [
        lambda ours: ours.metadata["pipeline"],
        lambda ours: ours.loaded,
        lambda ours: ours.request_metadata(GenerationRequest(prompt="x"))["pipeline"],
    ],
)
def test_a_model_may_go_while_another_thread_looks(
    tmp_path: Path, look: Callable[[LetGo], object]
) -> None:
    ours = LetGo(settings(tmp_path), LibraryFile(tmp_path / "models" / "models.toml"))
    ours.load(None)
    ours.goes = True
    assert look(ours)
    assert ours.loaded is None
    assert ours.metadata["model"] == "demo" and "pipeline" not in ours.metadata


def test_a_job_that_gets_no_outcome_is_ended_after_some_tries(folder: Path) -> None:
    """The real gateway, control thread and socket; only the outcome is never written."""
    (folder / "run").mkdir()
    log = ResultLog(folder / "disk_backups", "gpu-0")
    log.open()
    slots = Slots(log.position)

    def status() -> WorkerStatus:
        view = slots.view()
        return WorkerStatus(
            state=view.state,
            boot_id="a",
            log=view.log,
            committed=view.committed,
            slots=[SlotStatus(uuid=held.job.uuid) for held in view.held],
        )

    ControlServer(protocol.endpoint(folder / "run", 0), status, slots).start()
    slots.ready()
    with running(folder, "gateway") as service:
        service.wait_available()
        uuid, taken = service.submit(), 0
        while service.job(uuid)["state"] in ("queued", "running"):
            held = slots.take(0.1)
            if held is not None:
                assert held.job.uuid == uuid and taken < MAX_OFFERS
                taken += 1
                slots.release(uuid, log.position)
        record = service.result(uuid)
        assert taken == MAX_OFFERS
        assert (record["state"], record["data"]) == ("failed", None)
        assert service.job(uuid)["state"] == "failed"
        assert f"accepted this job {MAX_OFFERS} times" in record["errors"][0]
        service.wait_available()
        other = service.submit()
        held = eventually(lambda: slots.take(0.1), "the next one is offered")
        assert held.job is not None and held.job.uuid == other
        slots.release(uuid, log.position)


def test_a_restarted_gateway_knows_since_when_a_job_runs(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD) as service:
        uuid = service.submit(num_inference_steps=400)
        service.wait_step(uuid)
        service.kill("gateway")
        service.start("gateway")
        service.wait_answering()
        service.wait_step(uuid)
        seen = service.job(uuid)
        assert seen["state"] == "running" and seen["created_time"] <= seen["started_time"]
        requests.delete(f"{service.url}/image/jobs/{uuid}", timeout=30)
        assert service.result(uuid)["started_time"] == seen["started_time"]


def test_a_worker_refuses_what_becomes_too_large(tmp_path: Path) -> None:
    ours = pipeline.load(settings(tmp_path))
    asked = {"hires": {"scale": 4.0}, "width": 1032, "height": 1032}
    with pytest.raises(ValueError, match=r"hires\.scale: .* 4128 x 4128.* \(got 4\.0\)"):
        ours.generate(job(**asked), ignore)


def test_a_note_that_could_not_be_removed_goes_before_the_next_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the job of the old note would run again after a crash: the log ends with another."""
    folder = tmp_path / "disk_backups"
    log, jobs = ResultLog(folder, "gpu-0"), [journal_jobs.job(1), journal_jobs.job(2)]
    log.open()
    slots, stop = Slots(log.position), threading.Event()
    seen: list[list[str]] = []

    class Looking(Instant):
        def generate(self, job: Job, on_step: OnStep) -> list[GeneratedImage]:
            seen.append([path.name for path in note_paths(folder)])
            return super().generate(job, on_step)

    def refuse(notes: InFlight, uuid: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(InFlight, "remove", refuse)
    runner = runner_of(slots, log, folder, Looking(), stop.is_set)
    worker = threading.Thread(target=runner.run)
    worker.start()
    try:
        for each in jobs:
            eventually(lambda each=each: slots.offer(each), "it is idle")  # type: ignore[misc]
            eventually(lambda: slots.view().held == (), "it has its outcome")
    finally:
        stop.set()
        worker.join(DEADLINE_S)
    assert seen == [[f"gpu-0.in_flight.{each.uuid}.json"] for each in jobs]
