"""What a person starts: run.sh and demo.sh, one GPU or two, a port that is taken."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.service import (
    DEADLINE_S,
    ROOT,
    environment,
    eventually,
    free_port,
    running,
    send_until_it_ends,
)

SLOW, HELD = "tests.pipelines.slow:load", "tests.pipelines.held:load"


def demo(folder: Path, port: int) -> subprocess.CompletedProcess[str]:
    options = environment(folder / "data", port, SDE_PIPELINE=SLOW)
    options["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["./demo.sh", str(folder / "demo.png")],
        cwd=ROOT,
        env=options,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_the_demo_makes_three_images_and_leaves_nothing_running(folder: Path) -> None:
    port = free_port()
    done = demo(folder, port)
    assert done.returncode == 0, done.stdout + done.stderr
    for number in (1, 2, 3):
        assert (folder / f"demo-{number}.png").read_bytes().startswith(b"\x89PNG")
    assert f"http://127.0.0.1:{port}" in done.stdout
    assert f"{folder}/demo-1.png to {folder}/demo-3.png" in done.stdout
    assert "step" in done.stderr and "make run" in done.stdout and "sde open" in done.stdout
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_that_is_taken_is_no_obstacle_to_the_demo(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = demo(folder, port)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Port {port} is in use" in done.stderr
    assert (folder / "demo-3.png").stat().st_size


def test_the_terminal_says_when_the_service_is_ready(folder: Path) -> None:
    with running(folder, "supervisor", SDE_PIPELINE=SLOW) as service:

        def line() -> str:
            text = (folder / "supervisor.out").read_text()
            return next((each for each in text.splitlines() if each.startswith("ready: ")), "")

        found = eventually(line, "the line")
        assert found.startswith("ready: demo on ") and found.endswith(f", {service.url}")


def test_two_gpus_are_two_workers_with_one_table(folder: Path) -> None:
    with running(folder, "supervisor", SDE_PIPELINE=HELD, SDE_GPUS="2") as service:
        eventually(
            lambda: [w["state"] for w in service.get("/server/workers").json()] == ["idle"] * 2,
            "both workers are idle",
        )
        uuids = [service.submit(f"job {k}", num_inference_steps=2) for k in range(2)]
        assert service.post({"prompt": "a third"}).status_code == 429
        for uuid in uuids:
            service.wait_step(uuid)
        busy = {w["uuid"] for w in service.get("/server/workers").json()}
        assert busy == set(uuids)
        service.release()
        for uuid in uuids:
            assert service.result(uuid)["errors"] == []
        logs = [p for p in (folder / "disk_backups").glob("*.jsonl") if p.stat().st_size]
        assert sorted(p.name.partition(".")[0] for p in logs) == ["gpu-0", "gpu-1"]
        assert len(service.get("/image/generate").json()) == 2


def run(folder: Path, script: str, port: int, **settings: str) -> subprocess.CompletedProcess[str]:
    """A script that does not stay; what it says is no traceback."""
    options = environment(folder, port) | settings
    options["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [script],
        cwd=ROOT,
        env=options,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("script", ["./run.sh", "./demo.sh"])
def test_a_wrong_setting_is_told_before_anything_starts(folder: Path, script: str) -> None:
    done = run(folder, script, free_port(), MACHINE_SIZE="huge")
    assert done.returncode == 78
    assert "MACHINE_SIZE='huge'" in done.stderr


@pytest.mark.parametrize("port", ["abc", "99999", "0"])
def test_a_demo_on_no_port_says_so(folder: Path, port: str) -> None:
    done = run(folder, "./demo.sh", 1, SDE_PORT=port)
    assert done.returncode == 1 and f"SDE_PORT='{port}': a port is a whole number" in done.stderr


def test_a_port_that_is_taken_is_told_in_the_terminal(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run(folder, "./run.sh", port)
    assert done.returncode == 69
    assert f"SDE_PORT={port}: Address already in use" in done.stderr and not done.stdout


def test_a_service_that_is_there_already_is_named(folder: Path) -> None:
    with running(folder, "gateway") as service:
        done = run(folder, "./run.sh", free_port())
        assert done.returncode == 75
        assert f"is held by process {service.children['gateway'].pid}" in done.stderr


def test_a_path_may_hold_a_space_but_no_percent_sign(folder: Path) -> None:
    with running(folder / "a folder", "supervisor") as service:
        assert service.result(service.submit())["errors"] == []
    done = run(folder / "100%", "./run.sh", free_port())
    assert done.returncode == 78 and "cannot have a %" in done.stderr


def test_the_terminal_shows_the_address_and_ctrl_c_ends_it(folder: Path) -> None:
    with running(folder, "supervisor") as service:
        shown = (folder / "supervisor.out").read_text()
        assert shown.startswith(f"The service will be at {service.url} ")
        assert "CRIT" not in shown
        supervisor = service.children.pop("supervisor")
        send_until_it_ends(supervisor, signal.SIGINT)
        assert supervisor.returncode == 0
        eventually(lambda: not service.processes(), "all have left")


@pytest.mark.parametrize("way", ["link", "few files"])
def test_it_starts_through_a_link_and_with_few_open_files(folder: Path, way: str) -> None:
    (folder / "start").symlink_to(ROOT / "run.sh")
    start = f"exec '{folder}/start'" if way == "link" else f"ulimit -n 1024; exec {ROOT}/run.sh"
    with running(folder) as service:
        service.start("supervisor", ["sh", "-c", f"cd '{folder}'; {start}"])
        service.wait_answering()
        shown = (folder / "supervisor.out").read_text()
        assert shown.startswith(f"The service will be at {service.url} ")
        supervisor = service.children.pop("supervisor")
        send_until_it_ends(supervisor, signal.SIGTERM)
        assert supervisor.returncode == 0
        eventually(lambda: not service.processes(), "all have left")
