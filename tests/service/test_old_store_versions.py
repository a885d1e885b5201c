"""The store of each earlier version opens and goes on, and one of a newer version is refused.

`tests/golden/store-v2` and `store-v4` were written by the last versions that spoke these protocols,
killed at work. `store-v3` has its own tests in test_old_store.py.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image

from gpu_worker.store import durable
from tests.support.service import (
    DEADLINE_S,
    ROOT,
    eventually,
    run_module,
    running,
)

SMALL = {"num_inference_steps": 2, "width": 64, "height": 64, "seed": 7}

V2 = {
    "succeeded": "622d1378-e9ea-4690-8351-02a359d3edad",
    "deleted": "968d539c-70d6-4b25-8b2f-56b006f95b42",
    "running": "439aa38a-c120-4414-801d-792f4a135d8c",
    "queued": "d22df282-793c-4ac5-9b59-d489e4e5c3be",
    "canceled": "a51df564-7ac1-44d5-ba26-81887a34ff6b",
    "queued too": "b9bc2306-0a36-4ae3-ab7f-2e3975627696",
}
V4 = {
    "succeeded": "f19e9fc2-408a-4880-a341-157a2cad4f5b",
    "from an image": "f7fbdc03-2a9e-4e21-a171-ce57dbc0894f",
    "with options": "de151afe-8505-4ed8-a5a2-9c513bfde27e",
    "deleted": "8bbbcfca-269f-4d3a-bb17-2cd0f3fb0526",
    "running": "bdfa4085-d6c7-4145-92a3-aaff6ac25a33",
    "queued": "8d6984d1-fb51-4fff-b85d-058822ac96f1",
    "canceled": "7a4fe244-0be7-4937-b562-945c3d5942e9",
    "queued too": "c0fa3e4c-1b48-43bb-9110-25c7368f722e",
}


def image() -> str:
    """The image that was sent to the service of protocol 4."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def bodies() -> dict[str, dict[str, Any]]:
    """The bodies that differ from SMALL with a prompt."""
    return {
        "from an image": {"image": image(), "strength": 0.5},
        "with options": {
            "loras": [{"name": "ink"}],
            "scheduler": "EulerDiscreteScheduler",
            "negative_prompt": "blurry",
        },
    }


def copied(folder: Path, version: int) -> Path:
    shutil.copytree(ROOT / "tests" / "golden" / f"store-v{version}", folder, dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize(("version", "uuids"), [(2, V2), (4, V4)])
def test_a_store_opens_and_goes_on(folder: Path, version: int, uuids: dict[str, str]) -> None:
    """Rows 13 and 19: every job has one outcome, and each key gives the same job as before."""
    more = {"succeeded": {"num_images_per_prompt": 2}} if version == 4 else {}
    if version == 4:
        more |= bodies() | {"queued": {"image": image(), "strength": 0.5}}
    else:
        more |= {"running": {"num_inference_steps": 400}}
    with running(copied(folder, version), "gateway", "gpu_worker") as service:
        for name in uuids.keys() - {"deleted", "canceled"}:
            assert {each["state"] for each in service.results(uuids[name])} == {"succeeded"}
        assert service.result(uuids["running"])["attempt"] == 2
        assert service.job(uuids["canceled"])["state"] == "canceled"
        assert service.get(f"/image/jobs/{uuids['deleted']}").status_code == 410
        for name, uuid in uuids.items():
            body = {"prompt": name, **SMALL, **more.get(name, {})}
            reply = service.post(body, headers={"Idempotency-Key": name})
            assert reply.json() == {"generation_uuid": uuid}, name
            reply = service.post(body | {"seed": 8}, headers={"Idempotency-Key": name})
            assert reply.status_code == 409
        assert len({line["uuid"] for line in service.lines()}) == len(uuids)


def newer_record(folder: Path) -> Path:
    log = folder / "disk_backups" / "gpu-0.00000001.jsonl"
    last = log.read_bytes().splitlines(keepends=True)[-1]
    body = last[: -durable.TAIL_BYTES].replace(b'"format":1', b'"format":2')
    log.write_bytes(log.read_bytes() + durable.with_checksum(body))
    return log


def newer_record_in_the_middle(folder: Path) -> Path:
    log = newer_record(folder)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join((lines[-1], *lines[:-1])))
    return log


def appended(path: Path, event: dict[str, Any]) -> Path:
    path.write_bytes(
        (path.read_bytes() if path.exists() else b"")
        + durable.with_checksum(orjson.dumps(event)[:-1])
    )
    return path


def newer_journal(folder: Path) -> Path:
    event = {"v": 2, "event": "accepted", "jobs": []}
    return appended(folder / "journal" / "jobs.jsonl", event)


def newer_event(folder: Path) -> Path:
    event = {"v": 1, "event": "paused", "uuid": V4["queued"]}
    return appended(folder / "journal" / "jobs.jsonl", event)


def newer_job(folder: Path) -> Path:
    journal = folder / "journal" / "jobs.jsonl"
    event = orjson.loads(journal.read_bytes().splitlines()[0])
    event.pop("crc32")
    event["job"]["request"]["aspect"] = "wide"
    event["job"]["uuid"] = "00000000-0000-4000-8000-000000000009"
    return appended(journal, event)


def newer_tombstone(folder: Path) -> Path:
    event = {"v": 3, "event": "deleted", "uuids": [V4["queued"]]}
    return appended(folder / "journal" / "deleted.jsonl", event)


def newer_label(folder: Path) -> Path:
    event = {"v": 1, "event": "tagged", "images": [], "tag": "sky"}
    return appended(folder / "journal" / "labels.jsonl", event)


GATEWAY = [
    newer_record,
    newer_record_in_the_middle,
    newer_journal,
    newer_event,
    newer_job,
    newer_tombstone,
    newer_label,
]


def contents(folder: Path) -> dict[str, bytes]:
    files = [*folder.glob("journal/*"), *folder.glob("disk_backups/gpu-0*")]
    return {path.name: path.read_bytes() for path in files if path.suffix != ".lock"}


@pytest.mark.parametrize("make", GATEWAY)
def test_a_gateway_refuses_a_newer_store(folder: Path, make: Any) -> None:
    """Fault 7: a sentence names the file and the version, and no byte is changed."""
    path = make(copied(folder, 4))
    before = contents(folder)
    with running(folder) as service:
        service.start("gateway")
        child = service.children.pop("gateway")
        assert child.wait(DEADLINE_S) == os.EX_UNAVAILABLE
        said = service.output()
    assert f"{path} is from a newer version of this program" in said
    assert "Traceback" not in said and contents(folder) == before


@pytest.mark.parametrize("make", [newer_record, newer_journal, newer_job, newer_label])
def test_the_check_before_a_start_refuses_a_newer_store(folder: Path, make: Any) -> None:
    """Fault 7: run.sh says it in the terminal."""
    path = make(copied(folder, 4))
    done = run_module(folder, "gateway", "--check", timeout_s=DEADLINE_S)
    assert done.returncode == os.EX_UNAVAILABLE
    assert f"{path} is from a newer version of this program" in done.stderr


def newer_note(folder: Path) -> Path:
    (note,) = (folder / "disk_backups").glob("*.in_flight.*")
    note.write_bytes(note.read_bytes().replace(b'{"attempt"', b'{"v":2,"attempt"'))
    return note


def note_with_a_newer_job(folder: Path) -> Path:
    (note,) = (folder / "disk_backups").glob("*.in_flight.*")
    note.write_bytes(note.read_bytes().replace(b'"step_log"', b'"aspect":"wide","step_log"'))
    return note


@pytest.mark.parametrize("make", [newer_record, newer_note, note_with_a_newer_job])
def test_a_worker_refuses_a_newer_store(folder: Path, make: Any) -> None:
    """Fault 7: as the gateway does."""
    path = make(copied(folder, 4))
    before = contents(folder)
    with running(folder) as service:
        service.start("gpu_worker")
        child = service.children.pop("gpu_worker")
        assert child.wait(DEADLINE_S) == os.EX_UNAVAILABLE
        said = service.output()
    assert f"{path} is from a newer version of this program" in said
    assert contents(folder) == before


def test_what_is_damaged_is_no_newer_version_and_survives_a_compaction(folder: Path) -> None:
    """Faults 7 and 19: a damaged line of the journal is counted, also after a compaction."""
    journal = copied(folder, 4) / "journal" / "jobs.jsonl"
    damaged = [b'{"v":1,"event":"cancel"\n', b"\xff\n"]
    journal.write_bytes(b"".join((*damaged, journal.read_bytes())))
    code = (
        "import sys; from gateway.jobs import journal; from gateway.__main__ import main; "
        "journal.Journal.__init__.__defaults__ = (1, None); sys.exit(main())"
    )
    with running(folder) as service:
        service.start("gateway", [sys.executable, "-c", code])
        service.start("gpu_worker")
        service.wait_available()
        service.result(service.submit("one more"))
        eventually(lambda: journal.read_bytes().startswith(b"".join(damaged)), "it is compacted")
        storage = service.get("/server/storage").json()
        assert storage["damaged_lines"] == 2
        service.kill("gateway")
        service.start("gateway")
        service.wait_answering()
        assert service.get("/server/storage").json()["damaged_lines"] == 2
