"""How a job ended is told by its record alone: the same before and after a restart, and not after
its deletion, however many delete it and whenever."""

from __future__ import annotations

import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from gateway.errors import ResultDeleted
from tests.support.gateway_parts import Begun
from tests.support.service import Service, eventually, running

HELD = "tests.pipelines.held:load"


def delete(service: Service, uuid: str, trash: str) -> int:
    url = f"{service.url}/image/generate?generation_uuid={uuid}&trash={trash}"
    return requests.delete(url, timeout=30).status_code


def ended(service: Service, uuid: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        job = service.job(uuid)
        return job if job["ended_time"] else None

    return eventually(look, f"the end of {uuid}") or {}


def test_the_end_is_told_the_same_before_and_after_a_restart(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD, SDE_QUEUE_SIZE="9") as service:
        lives = service.submit(num_inference_steps=6, num_images_per_prompt=2)
        service.wait_step(lives)
        service.kill("gpu_worker", signal.SIGKILL)
        service.start("gpu_worker")
        canceled, never = (service.submit(num_inference_steps=400) for _ in range(2))
        requests.delete(f"{service.url}/image/jobs/{never}", timeout=30)
        # The gateway that sees the end is not the one that gave the job away.
        service.kill("gateway", signal.SIGKILL)
        service.start("gateway")
        service.wait_answering()
        service.release(lives)
        ended(service, lives)
        service.wait_step(canceled)
        requests.delete(f"{service.url}/image/jobs/{canceled}", timeout=30)
        before = [ended(service, uuid) for uuid in (lives, canceled, never)]
        service.kill("gateway", signal.SIGKILL)
        service.start("gateway")
        service.wait_answering()
        assert [service.job(uuid) for uuid in (lives, canceled, never)] == before
    success, halfway, nothing = before
    assert (success["attempts"], success["step"], success["steps"]) == (2, 12, 12)
    assert 1 <= halfway["step"] < halfway["steps"] == 400 and halfway["state"] == "canceled"
    assert (nothing["attempts"], nothing["step"], nothing["steps"]) == (0, 0, 400)
    record = service_record(folder, lives)
    assert success["started_time"] == record["started_time"]
    assert success["ended_time"] == record["ended_time"]


def service_record(folder: Path, uuid: str) -> dict[str, Any]:
    lines = Service(folder, 0, {}).lines()
    return next(line for line in lines if line["uuid"] == uuid)


@pytest.mark.parametrize(
    ("trash", "file", "line"),
    [
        ("false", "journal/jobs.jsonl", '"deleted","uuid":"{}"'),
        ("true", "journal/labels.jsonl", '"trash","images":["{}-1"]'),
    ],
    ids=["for good", "into the trash"],
)
def test_of_many_who_delete_a_result_one_is_told_so(
    service: Service, trash: str, file: str, line: str
) -> None:
    for _ in range(12):
        service.wait_available()
        uuid = service.submit()
        service.result(uuid)
        eventually(lambda uuid=uuid: service.job(uuid)["ended_time"], "it has ended")  # type: ignore[misc]
        with ThreadPoolExecutor(6) as pool:
            told = Counter(pool.map(lambda _, uuid=uuid: delete(service, uuid, trash), range(6)))  # type: ignore[misc]
        assert told == {204: 1, 410: 5}
        assert (service.data_dir / file).read_text().count(line.format(uuid)) == 1


def test_a_deletion_in_the_midst_of_the_end_stands(tmp_path: Path) -> None:
    """An HTTP thread that comes between the index's news of a result and the broker's."""
    begun = Begun(tmp_path)
    news = begun.index.refresh(*begun.log.position)
    assert begun.deletion.delete(begun.uuid) == 1
    for entry in news:
        begun.dispatcher._end(entry)
    with pytest.raises(ResultDeleted):
        begun.view(begun.uuid)
    assert begun.broker.running("gpu-0") == [] and begun.broker.views(9) == []
    assert begun.broker.take("gpu-0") is None
