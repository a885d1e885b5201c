"""A store that protocol 3 left opens and goes on: every job keeps or gets its one outcome.

`tests/golden/store-v3` was written by the last version that spoke protocol 3, killed at work.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import pytest

from tests.support.service import ROOT, Service, running

SUCCEEDED = "e1b566a8-7cde-4e33-864c-5fed392189fc"
DELETED = "bffff699-e34e-4f80-91ab-c61f8157694c"
RUNNING = "3d562a6c-fc55-415c-b1de-c54d9a8dc596"
QUEUED = "a742dff7-a9d2-4bd3-9a75-73f0490876ef"
CANCELED = "feb4d55f-afe2-455c-9563-2ef1f20154f3"
QUEUED_TOO = "f39aaf04-586f-4959-9ea0-0d0f3c0543b0"


@pytest.fixture
def old_store(folder: Path) -> Path:
    shutil.copytree(ROOT / "tests" / "golden" / "store-v3", folder, dirs_exist_ok=True)
    return folder


def check_outcomes(service: Service) -> None:
    assert len(service.results(SUCCEEDED)) == 2
    for uuid in (RUNNING, QUEUED, QUEUED_TOO):
        assert service.result(uuid)["state"] == "succeeded"
    assert service.result(RUNNING)["attempt"] == 2
    assert service.job(CANCELED)["state"] == "canceled"
    assert service.get(f"/image/jobs/{DELETED}").status_code == 410


def test_it_opens_and_goes_on(old_store: Path) -> None:
    log = old_store / "disk_backups" / "gpu-0.00000001.jsonl"
    before = log.read_bytes()
    with running(old_store, "gateway", "gpu_worker") as service:
        check_outcomes(service)
        # What was sent before with a key is answered with the same job.
        again = {"num_inference_steps": 2, "width": 64, "height": 64}
        request = {"prompt": "succeeded", "seed": 7, "num_images_per_prompt": 2, **again}
        reply = service.post(request, headers={"Idempotency-Key": "succeeded"})
        assert reply.json() == {"generation_uuid": SUCCEEDED}
        assert service.result(service.submit())["state"] == "succeeded"
    assert log.read_bytes().startswith(before)
    assert [each["uuid"] for each in service.lines()].count(RUNNING) == 1
    assert not list((old_store / "disk_backups").glob("*.in_flight*"))


def test_a_note_of_protocol_3_survives_another_death(old_store: Path) -> None:
    with running(old_store, "gateway", SDE_PIPELINE="tests.pipelines.held:load") as service:
        service.start("gpu_worker")
        service.wait_step(RUNNING)
        (note,) = (old_store / "disk_backups").glob("*.in_flight*")
        assert note.name == f"gpu-0.in_flight.{RUNNING}.json"
        assert orjson.loads(note.read_bytes())["attempt"] == 2
        service.kill("gpu_worker")
        service.settings["SDE_PIPELINE"] = "tests.pipelines.instant:load"
        service.start("gpu_worker")
        record = service.result(RUNNING)
        assert (record["state"], record["attempt"]) == ("failed", 2)
        assert "the worker died 2 times" in record["errors"][0]
        assert service.result(QUEUED)["state"] == "succeeded"
