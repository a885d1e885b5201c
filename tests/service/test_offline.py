"""Rows 45 to 47: a worker asks nobody for a model, and the tests' own guard sees whoever asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import network
from tests.support.network_guard.sitecustomize import leaves
from tests.support.service import DEADLINE_S, environment, run_module, running
from tests.support.stub_gateway import answering


def check(folder: Path, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    settings = {"SDE_PIPELINE": "gpu_worker.pipeline:load", **settings}
    return run_module(folder, "gpu_worker", *options, timeout_s=DEADLINE_S, **settings)


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_a_hub_id_that_is_not_here_is_refused(folder: Path, options: tuple[str, ...]) -> None:
    """Row 47: the sentence names the command that downloads."""
    with answering({}) as hub:
        done = check(folder, *options, SDE_MODEL="owner/name", HF_ENDPOINT=hub)
    assert done.returncode == os.EX_CONFIG
    assert "owner/name: is not on this machine" in done.stderr
    assert "`sde pull owner/name`" in done.stderr


def test_a_name_of_a_hub_id_that_is_not_here_is_refused(folder: Path) -> None:
    """Row 47: also through models.toml."""
    (folder / "models").mkdir()
    (folder / "models" / "models.toml").write_text('[models.ours]\nsource = "owner/name"\n')
    done = check(folder, "--check", SDE_MODEL="ours")
    assert done.returncode == os.EX_CONFIG and "sde pull owner/name" in done.stderr


@pytest.mark.parametrize("offline", ["0", "1", ""])
def test_a_library_that_asks_the_hub_gets_no_answer(folder: Path, offline: str) -> None:
    """Row 47: whatever HF_HUB_OFFLINE was, the hub library is offline in a worker."""
    settings = {"SDE_PIPELINE": "tests.pipelines.asks_hub:load", "HF_HUB_OFFLINE": offline}
    with running(folder, "gateway", "gpu_worker", **settings) as service:
        assert service.result(service.submit())["state"] == "succeeded"


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('192.0.2.1', 9), 1)",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('8.8.8.8', 53))",
        "import socket; socket.getaddrinfo('huggingface.co', 443)",
        "import socket; socket.create_connection(('2001:db8::1', 9), 1)",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', "
        "'import urllib.request; urllib.request.urlopen(\"http://192.0.2.1/\")'], check=True)",
    ],
)
def test_the_guard_refuses_and_notes_what_leaves(folder: Path, code: str) -> None:
    """Row 47: in a child, and in a child of a child."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(folder, 1), capture_output=True, check=False
    )
    assert done.returncode != 0 and b"the tests allow no connection" in done.stderr
    assert network.refused_connections() != []


def test_the_guard_sees_this_process_too() -> None:
    import socket

    with pytest.raises(OSError, match="the tests allow no connection"):
        socket.create_connection(("192.0.2.1", 9), 1)
    assert len(network.refused_connections()) == 1


def test_what_stays_here_is_allowed() -> None:
    assert not any(map(leaves, ("127.0.0.1", "127.9.9.9", "::1", "localhost", "0.0.0.0", "box")))
    assert not leaves("nobody.invalid") and not leaves(None)
    assert all(map(leaves, ("10.0.0.1", "huggingface.co", b"example.org.", "fe80::1%eth0")))
