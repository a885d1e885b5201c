"""Who dies, and what is left: exactly one outcome for an accepted job; the service goes on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import requests

from tests.support.service import (
    DEADLINE_S,
    Service,
    eventually,
    run_module,
    running,
)

HELD = "tests.pipelines.held:load"


def one_worker(service: Service) -> int:
    """The pid of the one live worker, once there is one."""
    return eventually(lambda: service.processes("gpu_worker"), "a worker lives")[0].pid


def test_a_killed_worker_is_replaced_and_its_job_has_one_outcome(folder: Path) -> None:
    with running(folder, "supervisor", SDE_PIPELINE=HELD) as service:
        uuid = service.submit(num_inference_steps=3)
        service.wait_step(uuid)
        first = one_worker(service)
        service.processes("gpu_worker")[0].send_signal(signal.SIGKILL)
        service.release()
        record = service.result(uuid)
        assert record["errors"] == [] and record["attempt"] == 2
        assert one_worker(service) != first
        service.wait_available()
        service.result(service.submit(num_inference_steps=1))
        assert [line["uuid"] for line in service.lines()].count(uuid) == 1


@pytest.mark.parametrize("vice", ["exits", "killed"])
def test_a_job_that_kills_its_worker_twice_is_not_run_again(folder: Path, vice: str) -> None:
    with running(folder, "supervisor", SDE_PIPELINE=f"tests.pipelines.{vice}:load") as service:
        record = service.result(service.submit("poison"))
        assert record["data"] is None and "died 2 times" in record["errors"][0]
        ended = eventually(lambda: (j := service.job(record["uuid"]))["ended_time"] and j, "ended")
        assert (ended["state"], ended["attempts"]) == ("failed", 2)
        service.wait_available()
        assert service.result(service.submit("harmless"))["errors"] == []
        assert len(service.lines()) == 2


def test_a_hang_with_the_gil_held_is_ended(folder: Path) -> None:
    with running(
        folder,
        "supervisor",
        SDE_PIPELINE="tests.pipelines.hangs:load",
        SDE_STEP_TIMEOUT_S="1",
        SDE_MAX_ATTEMPTS="1",
    ) as service:
        record = service.result(service.submit("hang"))
        assert record["data"] is None and "died once" in record["errors"][0]
        assert "Timeout" in service.output()  # faulthandler's traceback
        service.wait_available()
        assert service.result(service.submit("harmless"))["errors"] == []


def test_a_killed_gateway_comes_back_and_serves_the_result(folder: Path) -> None:
    with running(folder, "supervisor", SDE_PIPELINE=HELD) as service:
        uuid = service.submit(num_inference_steps=3)
        service.wait_step(uuid)
        worker = one_worker(service)
        eventually(lambda: service.processes("gateway"), "a gateway lives")[0].kill()
        service.release()
        record = service.result(uuid)
        assert record["errors"] == [] and record["attempt"] == 1
        assert one_worker(service) == worker
        eventually(lambda: service.job(uuid)["state"] == "succeeded", "it has ended")


def test_a_killed_supervisor_leaves_no_orphan(folder: Path) -> None:
    with running(folder, "supervisor", SDE_PIPELINE=HELD) as service:
        uuid = service.submit(num_inference_steps=3)
        service.wait_step(uuid)
        service.kill("supervisor", signal.SIGKILL)
        eventually(lambda: not service.processes(), "all children have left")
        service.release()
        service.start("supervisor")
        assert service.result(uuid)["errors"] == []
        assert len(service.processes("gpu_worker")) == len(service.processes("gateway")) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_worker_that_still_loads_leaves_with_the_supervisor(
    folder: Path, number: signal.Signals
) -> None:
    with running(folder, SDE_PIPELINE="tests.pipelines.never_loads:load") as service:
        service.start("supervisor")
        eventually(
            lambda: "loading demo" in service.output() and service.processes("gpu_worker"),
            "the worker loads",
        )
        service.kill("supervisor", number)
        eventually(lambda: not service.processes(), "all have left")
        assert "SIGKILL" not in service.output()


def test_a_clean_stop_in_mid_job_is_quick_and_the_job_is_finished_later(folder: Path) -> None:
    with running(folder, "supervisor", SDE_PIPELINE=HELD) as service:
        uuid = service.submit(num_inference_steps=3)
        service.wait_step(uuid)
        service.kill("supervisor", signal.SIGTERM)
        assert not service.processes()
        assert service.lines() == []
        service.release()
        service.start("supervisor")
        record = service.result(uuid)
        assert record["errors"] == [] and record["attempt"] == 1


@pytest.mark.parametrize("op", ["load", "unload", "generate"])
def test_a_lost_device_ends_the_process_whatever_was_run(folder: Path, op: str) -> None:
    pipeline = "tests.pipelines.loses_device:load"
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=pipeline) as service:
        if op == "generate":
            service.submit()
        else:
            model = "demo" if op == "unload" else "plain"
            # The process may end before it has replied.
            requests.post(f"{service.url}/server/models/{model}/{op}", timeout=DEADLINE_S)
        assert service.children["gpu_worker"].wait(DEADLINE_S) == 70
        errors = [line["errors"] for line in service.lines()]
        reason = "the device was lost: an illegal memory access, on purpose"
        assert errors == ([[reason]] if op == "generate" else [])


def test_a_fault_in_the_pipeline_is_told_and_the_process_goes_on(folder: Path) -> None:
    with running(
        folder, "gateway", "gpu_worker", SDE_PIPELINE="tests.pipelines.raises:load"
    ) as service:
        pid = one_worker(service)
        uuid = service.submit("raise")
        record = service.result(uuid)
        assert record["errors"] == [
            "the job ended with an unexpected error: a fault on purpose; the worker's log has more"
        ]
        assert record["data"] is None
        assert service.job(uuid)["state"] == "failed"
        service.wait_available()
        assert "MACHINE_SIZE=medium" in service.result(service.submit("memory"))["errors"][0]
        service.wait_available()
        assert service.result(service.submit("fine"))["errors"] == []
        assert one_worker(service) == pid


def test_a_model_that_cannot_be_loaded_is_503_and_a_clear_line(folder: Path) -> None:
    with running(folder, "gateway", SDE_PIPELINE="tests.pipelines.fails_to_load:load") as service:
        service.start("gpu_worker")
        assert service.children["gpu_worker"].wait(DEADLINE_S) == 69
        assert "could not be loaded: no such model, on purpose" in service.output()
        eventually(lambda: service.post({"prompt": "a"}).status_code == 503, "503")


def test_loading_is_answered_before_torch_is_there(folder: Path) -> None:
    with running(folder, "gateway", SDE_PIPELINE="gpu_worker.pipeline:load") as service:
        service.start("gpu_worker")

        def state() -> str:
            found: str = service.get("/server/workers").json()[0]["state"]
            return found

        eventually(lambda: state() == "loading", "the worker says that it loads")
        assert service.get("/server/status").json() == {"is_available": False}
        assert service.post({"prompt": "a"}).status_code == 429
        service.wait_available()
        assert service.lines() == []


def test_a_second_worker_on_the_same_store_says_who_holds_it(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker") as service:
        second = run_module(folder, "gpu_worker")
        assert second.returncode == 75
        assert f"held by process {service.children['gpu_worker'].pid}" in second.stderr
        assert service.result(service.submit())["errors"] == []


def test_a_stopped_worker_is_unreachable_and_answers_again(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker") as service:
        worker = service.children["gpu_worker"]
        worker.send_signal(signal.SIGSTOP)
        eventually(
            lambda: service.get("/server/workers").json()[0]["state"] == "unreachable", "gone"
        )
        assert service.post({"prompt": "never run"}).status_code == 503
        worker.send_signal(signal.SIGCONT)
        service.wait_available()
        service.result(service.submit("run"))
        assert [line["prompt"] for line in service.lines()] == ["run"]
