"""A disk that takes no more, or nothing: the picture is kept, jobs are refused, reads go on."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.disk import may_grow_to
from tests.support.service import eventually, running


def newest_size(folder: Path) -> int:
    return max(path.stat().st_size for path in (folder / "disk_backups").glob("gpu-0.*.jsonl"))


def test_a_picture_that_finds_no_room_is_kept_until_there_is_some(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker") as service:
        first = service.submit()
        service.result(first)
        service.wait_available()
        may_grow_to(service, "gpu_worker", newest_size(folder) + 700)  # the note still fits
        waiting = service.submit()

        def said() -> bool:
            return "the disk refuses the result" in "".join(service.job(waiting)["errors"])

        eventually(said, "the job says what it waits for")
        assert service.job(waiting)["state"] == "running"
        assert service.get("/server/status").json() == {"is_available": False}
        refused = service.post({"prompt": "a"})
        assert refused.status_code == 507 and "File too large" in refused.json()["detail"]
        assert "File too large" in service.get("/server/storage").json()["trouble"]
        assert [line["uuid"] for line in service.get("/image/generate").json()] == [first]
        may_grow_to(service, "gpu_worker", None)
        assert service.result(waiting)["errors"] == []
        service.wait_available()
        assert service.result(service.submit())["errors"] == []
        assert len(service.lines()) == 3


def test_a_worker_killed_while_it_waits_for_room_makes_the_picture_again(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker") as service:
        service.result(service.submit())
        service.wait_available()
        may_grow_to(service, "gpu_worker", newest_size(folder) + 700)
        waiting = service.submit(seed=5)
        eventually(lambda: service.job(waiting)["errors"], "the job waits for the disk")
        service.kill("gpu_worker", signal.SIGKILL)
        service.start("gpu_worker")
        record = service.result(waiting)
        assert record["errors"] == [] and record["attempt"] == 2


def test_a_job_that_the_journal_cannot_take_is_refused(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker") as service:
        service.result(service.submit())
        service.wait_available()
        journal = folder / "journal" / "jobs.jsonl"
        size = journal.stat().st_size
        may_grow_to(service, "gateway", size + 20)
        refused = service.post({"prompt": "a"})
        assert refused.status_code == 507 and "cannot store the job" in refused.json()["detail"]
        assert journal.stat().st_size == size
        may_grow_to(service, "gateway", None)
        assert service.result(service.submit())["errors"] == []
        assert len(service.lines()) == 2


def test_too_little_room_is_refused_before_any_work(folder: Path) -> None:
    with running(folder, "gateway", SDE_MIN_FREE_MIB=str(1 << 40)) as service:
        service.start("gpu_worker")
        eventually(lambda: service.get("/server/workers").json()[0]["state"] == "idle", "idle")
        assert service.get("/server/status").json() == {"is_available": False}
        refused = service.post({"prompt": "a"})
        assert refused.status_code == 507 and "SDE_MIN_FREE_MIB" in refused.json()["detail"]
        assert service.get("/image/jobs").json() == []


def may_mount() -> bool:
    """Whether this process has CAP_SYS_ADMIN, number 21 (capabilities(7))."""
    status = Path("/proc/self/status").read_text()
    return bool(int(status.split("CapEff:")[1].split()[0], 16) >> 21 & 1)


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own, 2 MiB."""
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "sde-test", str(folder)]
    if not may_mount():
        pytest.skip("a tmpfs is mounted with CAP_SYS_ADMIN only")
    subprocess.run(command, check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_fills_and_empties(small_disk: Path) -> None:
    with running(
        small_disk, "gateway", "gpu_worker", SDE_MIN_FREE_MIB="0", SDE_QUEUE_SIZE="50"
    ) as service:
        ballast = small_disk / "ballast"
        first = service.submit()
        service.result(first)
        service.wait_available()
        with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        # A file's last page has room for a few lines more: it is refused when that is used up.
        replies = [service.post({"prompt": "a"}).status_code]
        while replies[-1] == 200 and len(replies) < 40:
            replies.append(service.post({"prompt": "a"}).status_code)
        assert replies[-1] == 507
        assert [line["uuid"] for line in service.get("/image/generate").json()] == [first]
        ballast.unlink()
        service.wait_available()
        after = service.submit("after")
        assert service.result(after)["errors"] == []
        accepted = 2 + replies.count(200)
        eventually(lambda: len(service.lines()) == accepted, "all that was accepted has ended")


def test_a_gateway_that_starts_on_a_full_disk_keeps_its_index(small_disk: Path) -> None:
    with running(small_disk, "gateway", "gpu_worker", SDE_MIN_FREE_MIB="0") as service:
        first = service.submit()
        service.result(first)
        service.wait_available()
        index = small_disk / "disk_backups" / "index.sqlite"
        file = index.stat().st_ino
        ballast = small_disk / "ballast"
        service.kill("gateway", signal.SIGKILL)
        # As after a clean end: what SQLite keeps beside the file is gone, and finds no room later.
        with contextlib.closing(sqlite3.connect(index)) as db:
            assert db.execute("SELECT COUNT(*) FROM results").fetchone() == (1,)
        assert not index.with_name("index.sqlite-shm").exists()
        with open(ballast, "wb", buffering=0) as full, contextlib.suppress(OSError):
            while full.write(b"x" * 4096):
                pass
        service.start("gateway")
        service.wait_answering()
        assert [line["uuid"] for line in service.get("/image/generate").json()] == [first]
        assert index.stat().st_ino == file
        ballast.unlink()
        service.wait_available()
        after = service.submit("after")
        assert service.result(after)["errors"] == []
        assert index.stat().st_ino == file
        service.kill("gateway", signal.SIGTERM)
        with contextlib.closing(sqlite3.connect(index)) as db:
            found = {uuid for (uuid,) in db.execute("SELECT uuid FROM results")}
        assert found == {first, after}
