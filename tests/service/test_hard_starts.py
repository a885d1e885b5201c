"""Rows 21 and 30 (fault 22): a start on a read-only disk, and one that must build a large index."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
import requests

from gateway import __main__ as gateway_main
from gateway.access.hosts import HostAllowlist
from gateway.assembly import Gateway
from gateway.http.error_shapes import ErrorShapes
from gateway.http.server.starting_app import StartingApp
from gateway.store.indexer import IndexProgress
from gpu_worker.store import durable, process
from tests.support.service import DEADLINE_S, ROOT, Service, eventually, running
from tests.support.stored import store

SUCCEEDED = "f19e9fc2-408a-4880-a341-157a2cad4f5b"


def may_mount() -> bool:
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


needs_mount = pytest.mark.skipif(not may_mount(), reason="a disk is mounted with CAP_SYS_ADMIN")


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[Path]:
    place = folder / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "sde", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def remount(place: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", place], check=True)


def check_history(service: Service) -> None:
    assert len(service.results(SUCCEEDED)) == 2
    assert service.get(f"/image/files/{SUCCEEDED}.png").headers["Content-Type"] == "image/png"
    assert len(service.get("/image/generate").json()) >= 4
    assert service.get("/server/status").json() == {"is_available": False}
    assert "read-only" in service.get("/server/storage").json()["trouble"]
    reply = service.post({"prompt": "a"})
    assert reply.status_code == 507 and "read-only" in reply.json()["detail"]


@needs_mount
@pytest.mark.parametrize("left", ["stopped", "killed", "no index", "never started"])
def test_a_gateway_on_a_read_only_disk_serves_history(folder: Path, left: str) -> None:
    """Row 21: whatever state the last process left the store in."""
    with disk(folder) as place:
        shutil.copytree(ROOT / "tests" / "golden" / "store-v4", place, dirs_exist_ok=True)
        with running(folder / "out") as service:
            service.settings |= {"SDE_DATA_DIR": str(place), "SDE_MIN_FREE_MIB": "1"}
            if left != "never started":
                service.start("gateway")
                service.wait_answering()
                service.kill("gateway", signal.SIGKILL if left == "killed" else signal.SIGTERM)
            if left == "no index":
                for path in place.glob("disk_backups/index.sqlite*"):
                    path.unlink()
            remount(place, "ro")
            service.start("gateway")
            service.wait_answering()
            check_history(service)
            remount(place, "rw")
            service.start("gpu_worker")
            service.wait_available()
            assert service.result(service.submit("again"))["state"] == "succeeded"
            service.kill("gpu_worker")
            service.kill("gateway")


@needs_mount
def test_a_lock_on_a_read_only_disk_still_locks(folder: Path) -> None:
    with disk(folder) as place:
        (place / "old.lock").touch()
        remount(place, "ro")
        for name in ("old.lock", "new.lock"):
            with process.lock(place / name, "it"):
                code = (
                    "import sys; from pathlib import Path; from gpu_worker.store import process\n"
                )
                code += "process.lock(Path(sys.argv[1]), 'it')"
                done = subprocess.run(
                    [sys.executable, "-c", code, place / name],
                    cwd=ROOT,
                    capture_output=True,
                    check=False,
                )
                assert b"StoreLocked: it is held by process" in done.stderr


SLOW_INDEX = """
import sys, time
from pathlib import Path
from gateway import __main__ as start
from gateway.store import indexer

go_on = Path(sys.argv[1])
real = indexer.scan.lines

def lines(*arguments):
    for number, line in enumerate(real(*arguments)):
        while number == 5 and not go_on.exists():
            time.sleep(0.01)
        yield line

indexer.scan.lines = lines
start.START_PATIENCE_S = 0.0
sys.exit(start.main())
"""


def test_a_long_first_start_answers_meanwhile(folder: Path) -> None:
    """Row 30 (fault 22): 503 with Retry-After and progress, then everything is served."""
    uuids = store(folder, 20)
    with running(folder) as service:
        service.start("gateway", [sys.executable, "-c", SLOW_INDEX, str(folder / "go on")])
        service.wait_listening()
        for method, path in [
            ("GET", "/image/generate"),
            ("POST", "/image/generate"),
            ("GET", f"/image/jobs/{uuids[0]}"),
            ("DELETE", f"/image/jobs/{uuids[0]}"),
            ("GET", "/server/workers"),
            ("GET", "/nowhere"),
        ]:
            reply = requests.request(method, service.url + path, timeout=30)
            assert reply.status_code == 503 and int(reply.headers["Retry-After"]) >= 1
            assert reply.headers["Content-Type"] == "application/problem+json"
            assert "the index of the results is being built" in reply.json()["detail"]
        assert service.get("/healthz").json() == {"status": "ok"}
        assert service.get("/server/status").json() == {"is_available": False}
        head = requests.head(service.url + "/image/generate", timeout=30)
        assert head.status_code == 503 and head.content == b""
        (folder / "go on").touch()
        eventually(lambda: service.get("/image/generate").ok, "the index is built")
        assert len(service.get("/image/generate").json()) == 20
        service.start("gpu_worker")
        service.wait_available()
        assert service.result(service.submit())["state"] == "succeeded"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_long_first_start_that_is_stopped_begins_again(
    folder: Path, number: signal.Signals
) -> None:
    """Row 30: nothing of the store is changed by it."""
    store(folder, 20)
    log = folder / "disk_backups" / "gpu-0.00000001.jsonl"
    before = log.read_bytes()
    with running(folder) as service:
        service.start("gateway", [sys.executable, "-c", SLOW_INDEX, str(folder / "go on")])
        service.wait_listening()
        service.kill("gateway", number)
        service.start("gateway")
        service.wait_answering()
        assert len(service.get("/image/generate").json()) == 20
    assert log.read_bytes() == before


def test_a_store_that_is_refused_late_ends_the_process(folder: Path) -> None:
    """Fault 7: also when the gateway listens already."""
    store(folder, 20)
    log = folder / "disk_backups" / "gpu-0.00000001.jsonl"
    body = log.read_bytes().splitlines(keepends=True)[0][: -durable.TAIL_BYTES]
    newer = durable.with_checksum(body.replace(b'"format":1', b'"format":2'))
    with running(folder) as service:
        service.start("gateway", [sys.executable, "-c", SLOW_INDEX, str(folder / "go on")])
        service.wait_listening()
        with open(log, "ab") as file:
            file.write(newer)
        (folder / "go on").touch()
        child = service.children.pop("gateway")
        assert child.wait(DEADLINE_S) == os.EX_UNAVAILABLE
        assert f"{log} is from a newer version of this program" in service.output()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_the_first_round_is_clean(folder: Path, number: int) -> None:
    """No worker answers, so the gateway waits a second for one after it has begun to listen."""
    with running(folder) as service:
        service.start("gateway")
        child = service.children.pop("gateway")

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", service.port)) == 0

        eventually(listens, "it listens")
        child.send_signal(number)
        assert child.wait(DEADLINE_S) == 0, service.output()
        assert "cannot start" not in service.output() and "Traceback" not in service.output()


@pytest.mark.parametrize("error", [RuntimeError("at interpreter shutdown"), OSError(5), SystemExit])
def test_what_fails_in_a_start_that_is_to_stop_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    start: Future[Gateway] = Future()
    start.set_exception(error)
    is_stopping = threading.Event()
    is_stopping.set()
    app = StartingApp(IndexProgress(), HostAllowlist("127.0.0.1", ""), ErrorShapes())
    with pytest.raises(SystemExit) if error is SystemExit else contextlib.nullcontext():
        gateway_main._begin(start, app, is_stopping)
    assert exits == [] and not caplog.text
    is_stopping.clear()
    if error is not SystemExit:
        gateway_main._begin(start, app, is_stopping)
        assert set(exits) <= {os.EX_UNAVAILABLE, os.EX_SOFTWARE} and exits
