"""Fault 3: where /proc is hidden, or has other contents, everything works; memory is unknown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gpu_worker.control import movement
from gpu_worker.control.movement import Movement, resident_bytes
from gpu_worker.store import process
from tests.support.service import running

HIDDEN = "mount -t tmpfs none /proc && exec {python} -m {module}"


def may_unshare() -> bool:
    command = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /proc"]
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not may_unshare(), reason="/proc is hidden with CAP_SYS_ADMIN only")
def test_a_service_without_proc_works(folder: Path) -> None:
    """A worker and a gateway that see an empty /proc."""
    with running(folder) as service:
        for module in ("gateway", "gpu_worker"):
            hidden = HIDDEN.format(python=sys.executable, module=module)
            service.start(module, ["unshare", "-m", "sh", "-c", hidden])
        service.wait_available()
        assert service.result(service.submit())["state"] == "succeeded"
        (worker,) = service.get("/server/workers").json()
        assert worker["memory_bytes"] is None and worker["state"] in ("idle", "busy")


@pytest.mark.parametrize("content", [None, b"", b"1", b"a b c", b"\xff\xfe"])
def test_odd_contents_are_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    monkeypatch.setattr(movement, "_PROCESS", tmp_path)
    if content is not None:
        (tmp_path / "statm").write_bytes(content)
    assert resident_bytes() is None
    assert Movement(tmp_path / "hub")() is False


def test_a_hidden_first_process_may_be_supervisord(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "Path", lambda _: Path("/nonexistent/cmdline"))
    assert process._first_command() == b"supervisord"
