"""A worker that cannot start says why, whatever ends it, and is started again at a bounded pace.

Rows 3, 6, 8, 9 and 15 of the list of failures, and poison jobs that slowed every restart.
"""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from gpu_worker import launcher
from gpu_worker.store import exit_report
from gpu_worker.store.exit_report import NO_EXIT, ExitReport
from tests.support.command import sde
from tests.support.service import LEAK, Service, eventually, running

CANNOT = "tests.pipelines.cannot_start:load"


def worker(service: Service) -> dict[str, Any]:
    (described,) = service.get("/server/workers").json()
    return dict(described)


def worker_in(service: Service, state: str) -> dict[str, Any]:
    return eventually(lambda: (w := worker(service))["state"] == state and w, f"it is {state}")


def one_pid(service: Service, module: str = "gpu_worker") -> int:
    return eventually(lambda: service.processes(module), f"{module} lives")[0].pid


# ---- row 8: a worker that cannot start --------------------------------------------------------

VICES = {
    "segfault": "the process was ended by SIGSEGV: Segmentation fault",
    "exit": "the process ended with exit code 3: libcuda.so.1: cannot open shared object file",
    "base exception": "the process ended with exit code 1: the driver is too old",
}


@pytest.mark.parametrize("vice", VICES)
def test_a_worker_that_cannot_start_says_why_and_history_is_served(folder: Path, vice: str) -> None:
    """Row 8, and row 9: its starts become fewer."""
    with running(folder, "supervisor", SDE_PIPELINE=CANNOT) as service:
        uuid = service.submit()
        service.result(uuid)
        (folder / "vice").write_text(vice)
        service.processes("gpu_worker")[0].kill()
        failed = worker_in(service, "failed")
        assert failed["last_error"] == VICES[vice] and failed["last_error_time"]
        assert failed["restarts"] >= 3 and failed["boot_id"] is None
        refused = service.post({"prompt": "a"})
        assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 5
        assert f"no GPU worker can be started: {VICES[vice]}" in refused.json()["detail"]
        assert service.get("/readyz").json()["detail"] == f"gpu-0 does not answer: {VICES[vice]}"
        assert len(service.results(uuid)) == 1 and service.get("/healthz").ok
        status = sde(service.url, "status")
        assert status.returncode == 1
        assert f"gpu-0: failed\ngpu-0: {VICES[vice]}" in status.stdout
        assert json.loads(sde(service.url, "workers", "--json").stdout)[0]["state"] == "failed"
        (folder / "vice").unlink()
        service.wait_available()
        service.result(service.submit())
        cured = eventually(lambda: (w := worker(service))["last_error"] is None and w, "forgotten")
        assert cured["restarts"] >= 3


def test_a_module_that_is_missing_is_named_over_restarts(folder: Path) -> None:
    """Row 8: here the process itself lives on and tells its reason."""
    with running(folder, SDE_PIPELINE=CANNOT) as service:
        (folder / "vice").write_text("import")
        service.start("supervisor")
        service.wait_answering()
        text = "No module named 'a_module_that_nobody_has'"
        eventually(lambda: text in (worker(service)["last_error"] or ""), "it names the module")
        service.processes("gpu_worker")[0].kill()
        eventually(lambda: worker(service)["restarts"] == 1, "it was started again")
        eventually(lambda: text in (worker(service)["last_error"] or ""), "it still does")


def test_a_table_of_models_that_became_invalid_is_told_at_once(folder: Path) -> None:
    """Row 8: an invalid setting needs no further attempt to be final."""
    with running(folder, "supervisor") as service:
        (folder / "models").mkdir()
        table = folder / "models" / "models.toml"
        table.write_text("[models.x]\n")
        service.processes("gpu_worker")[0].kill()
        failed = worker_in(service, "failed")
        assert failed["last_error"].endswith(
            "exit code 78: models.toml: models.x.source: is required"
        )
        assert not LEAK.search(failed["last_error"])
        table.unlink()
        service.wait_available()


def test_an_earlier_end_is_known_after_the_service_has_started_again(folder: Path) -> None:
    """Row 8: across restarts of supervisord, too."""
    with running(folder, SDE_PIPELINE=CANNOT) as service:
        (folder / "vice").write_text("exit")
        service.start("supervisor")
        service.wait_answering()
        eventually(lambda: worker(service)["last_error"], "an end")
        service.kill("supervisor", signal.SIGTERM)
        (folder / "vice").write_text("killed")
        service.start("gateway")
        service.wait_answering()
        told = eventually(lambda: worker(service)["last_error"], "the earlier end")
        assert told == VICES["exit"] and worker(service)["state"] in ("unreachable", "failed")


# ---- row 9: pauses ----------------------------------------------------------------------------


def test_the_pause_is_bounded_and_ten_starts_fit_in_no_minute() -> None:
    """Row 9."""
    pauses = [launcher.pause_after(failures, 0.0) for failures in range(1, 100)]
    assert pauses == sorted(pauses) and pauses[0] <= 0.5 and max(pauses) <= 30
    assert sum(pauses[:8]) > 60
    assert launcher.pause_after(50, 60.0) == pauses[0]


def test_a_good_job_behind_poison_ones_does_not_wait_long(folder: Path) -> None:
    """Each outcome resets the pause, so the later poison jobs cost no more than the first."""
    settings = {"SDE_PIPELINE": "tests.pipelines.killed:load", "SDE_QUEUE_SIZE": "9"}
    with running(folder, "supervisor", **settings) as service:
        poison = [service.submit(f"poison {number}") for number in range(3)]
        good = service.submit("good")
        assert service.result(good)["errors"] == []
        for uuid in poison:
            (error,) = service.result(uuid)["errors"]
            assert error.startswith("the worker died 2 times while it ran this job")
            assert "the process was ended by SIGKILL" in error
        log = (folder / "run" / "gpu-0.log").read_text()
        pauses = [float(text) for text in re.findall(r"starts again in ([\d.]+) s", log)]
        assert len(pauses) == 6 and max(pauses) <= launcher.PAUSES_S[1]
        assert worker(service)["restarts"] == 6 and worker(service)["last_error"] is None


# ---- the launcher itself ----------------------------------------------------------------------


def test_a_launcher_that_is_killed_takes_its_worker_along_and_is_replaced(folder: Path) -> None:
    with running(folder, "supervisor", SDE_PIPELINE="tests.pipelines.held:load") as service:
        uuid = service.submit(num_inference_steps=3)
        service.wait_step(uuid)
        first = one_pid(service)
        service.processes("gpu_worker.launcher")[0].kill()
        eventually(lambda: not psutil.pid_exists(first), "the worker has left")
        service.release()
        assert service.result(uuid)["errors"] == []
        assert len(service.processes("gpu_worker")) == 1
        assert len(service.processes("gpu_worker.launcher")) == 1


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (1, "Timeout (0:00:02)!\nThread 0x1 (most recent call first):\n  File x", launcher.TIMEOUT),
        (
            1,
            "Traceback (most recent call last):\n  File\nOSError: no\n",
            "exit code 1: OSError: no",
        ),
        (78, "gpu_worker: SDE_GPUS='x': must be\n", "exit code 78: SDE_GPUS='x': must be"),
        (70, "2026-01-01T00:00:00.000+00:00 CRITICAL gpu_worker: lost: it\n", "70: lost: it"),
        (70, '{"level": "critical", "message": "lost"}\n', "exit code 70: lost"),
        (69, '{"level": "info", "message": "x"}\n{"le', "exit code 69"),
        (
            0,
            "2026-01-01T00:00:00.000+00:00 INFO gpu_worker: stopped\n",
            "the process was asked to stop, and ended",
        ),
        (
            -11,
            "Fatal Python error: Segmentation fault\n\nThread x\n",
            "SIGSEGV: Segmentation fault",
        ),
        (-9, "anything\n", "the process was ended by SIGKILL"),
        (-99, "", "the process was ended by signal 99"),
        (3, "", "the process ended with exit code 3"),
        (3, "\n   \n\xff\x00\n", "exit code 3: \xff\\x00"),
    ],
)
def test_the_reason_of_an_end(code: int, text: str, reason: str) -> None:
    assert launcher.end_reason(code, text).endswith(reason)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}x", '{"reason": 5}', '{"failures": "x"}', '{"new": 1}', "\xff"]
)
def test_a_report_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    file = exit_report.path(tmp_path, "gpu-0")
    assert exit_report.read(file) == NO_EXIT
    file.write_text(content, encoding="latin-1")
    assert exit_report.read(file) == NO_EXIT
    exit_report.write(file, ExitReport("a", "b", 1, 2, 3))
    assert exit_report.read(file) == ExitReport("a", "b", 1, 2, 3)
    exit_report.write(tmp_path / "no" / "folder", NO_EXIT)  # a full disk is no reason to end


def test_a_worker_that_was_asked_to_stop_is_no_mystery(folder: Path) -> None:
    """Somebody sends SIGTERM to the worker itself."""
    with running(folder, "supervisor") as service:
        service.processes("gpu_worker")[0].terminate()
        stopped = eventually(lambda: (w := worker(service))["last_error"] and w, "its end")
        assert stopped["last_error"] == "the process was asked to stop, and ended"
        service.wait_available()
        assert worker(service)["restarts"] == 1


# ---- rows 3 and 6: a hang, and a lost device --------------------------------------------------


@pytest.mark.parametrize("vice", ["waits", "hangs"])
def test_a_hang_shows_its_age_and_ends_as_a_timeout(folder: Path, vice: str) -> None:
    """Row 3: without the GIL. Row 2: with it; then nobody can tell the age."""
    with running(
        folder,
        "supervisor",
        SDE_PIPELINE=f"tests.pipelines.{vice}:load",
        SDE_STEP_TIMEOUT_S="2",
        SDE_MAX_ATTEMPTS="1",
    ) as service:
        uuid = service.submit("hang")
        if vice == "waits":
            old = eventually(
                lambda: (age := worker(service)["step_age_s"]) and age > 0.5 and age, "its age"
            )
            assert worker(service)["uuid"] == uuid and old < 60
        (error,) = service.result(uuid)["errors"]
        assert error.startswith("the worker died once while") and f"({launcher.TIMEOUT})" in error
        service.wait_available()
        assert service.result(service.submit("harmless"))["errors"] == []
        idle = worker(service)
        assert idle["step_age_s"] is None


def test_a_lost_device_costs_its_job_and_its_process_only(folder: Path) -> None:
    """Row 6: exit code 70, another process, and the next job."""
    with running(
        folder, "supervisor", SDE_PIPELINE="tests.pipelines.loses_device_once:load"
    ) as service:
        first = one_pid(service)
        (error,) = service.result(service.submit("lose it"))["errors"]
        assert error == "the device was lost: an illegal memory access, on purpose"
        eventually(lambda: service.processes("gpu_worker") and one_pid(service) != first, "new")
        assert "exit code 70" in service.output()
        service.wait_available()
        assert service.result(service.submit("fine"))["errors"] == []


# ---- row 15: stop and HUP ---------------------------------------------------------------------


def test_a_reload_of_supervisord_loses_and_doubles_nothing(folder: Path) -> None:
    """Row 15: SIGHUP with a job in flight, again and again."""
    with running(folder, "supervisor", SDE_PIPELINE="tests.pipelines.held:load") as service:
        uuid = service.submit(num_inference_steps=3)
        for _ in range(3):
            service.wait_step(uuid)
            before = one_pid(service)
            service.children["supervisor"].send_signal(signal.SIGHUP)
            eventually(lambda: not psutil.pid_exists(before), "the old worker has left")  # noqa: B023
            service.wait_answering()
            eventually(lambda: worker(service)["uuid"] == uuid, "the new one has the job")
        service.release()
        record = service.result(uuid)
        assert (record["errors"], record["attempt"]) == ([], 1)
        assert [line["uuid"] for line in service.lines()] == [uuid]
        for module in ("gateway", "gpu_worker", "gpu_worker.launcher"):
            assert len(service.processes(module)) == 1
