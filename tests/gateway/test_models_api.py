"""GET /server/models and /server/workers; loading and unloading over HTTP."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.pipelines.describes import asked
from tests.support.service import Service, eventually, running

DESCRIBES = "tests.pipelines.describes:load"

KEYS = {
    *("worker", "name", "state", "boot_id", "model", "loaded", "load_error", "device", "dtype"),
    *("machine_size", "memory_bytes", "versions", "uuid", "step", "steps", "step_s", "log"),
    *("committed", "trouble", "last_error", "last_error_time", "restarts", "step_age_s"),
    *("gpu_memory_bytes", "gpu_memory_total_bytes"),
}


def order(service: Service, name: str, op: str, **options: Any) -> requests.Response:
    return requests.post(f"{service.url}/server/models/{name}/{op}", timeout=30, **options)


def worker(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = service.get("/server/workers").json()[0]
    return found


def loaded(service: Service) -> Any:
    now = worker(service)
    return now["loaded"] if now["state"] == "idle" else "not idle"


def test_what_the_worker_can_do_is_there(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=DESCRIBES) as service:
        said = service.get("/server/models").json()
        assert said["default"] == "demo"
        assert said["models"]["plain"]["modes"] == ["txt2img"]
        assert set(worker(service)) == KEYS
        assert (worker(service)["worker"], worker(service)["loaded"]) == ("gpu-0", "demo")
        assert worker(service)["boot_id"] and worker(service)["committed"] == 0
        assert service.get("/server/models?x=1").status_code == 400


def test_before_a_worker_has_spoken_it_is_503(folder: Path) -> None:
    with running(folder, "gateway") as service:
        for reply in (service.get("/server/models"), order(service, "demo", "load")):
            assert reply.status_code == 503, reply.text
            assert reply.headers["Content-Type"] == "application/problem+json"
        assert worker(service)["state"] == "unreachable"
        assert set(worker(service)) == KEYS


def test_a_model_is_loaded_and_unloaded_and_jobs_go_on(folder: Path) -> None:
    with running(
        folder, "gateway", "gpu_worker", SDE_PIPELINE=DESCRIBES, SDE_QUEUE_SIZE="4"
    ) as service:
        reply = order(service, "slow", "load")
        assert reply.status_code == 202, reply.text
        assert (reply.json()["worker"], reply.json()["state"]) == ("gpu-0", "loading")
        waits = service.submit(model="slow", num_inference_steps=1)
        assert service.job(waits)["state"] == "queued"
        assert order(service, "demo", "load").status_code == 409
        service.release()
        assert service.result(waits)["errors"] == []
        eventually(lambda: loaded(service) == "slow", "it is loaded")
        assert asked(folder) == ["load slow"]
        assert order(service, "demo", "unload").status_code == 409
        assert order(service, "slow", "unload").status_code == 202
        eventually(lambda: loaded(service) is None, "it is unloaded")
        assert service.result(service.submit(num_inference_steps=1))["errors"] == []
        assert asked(folder) == ["load slow", "unload", "load demo"]


def test_a_model_that_cannot_be_loaded_is_told_and_the_worker_serves_on(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=DESCRIBES) as service:
        assert order(service, "broken", "load").status_code == 202
        eventually(lambda: worker(service)["load_error"], "it says why")
        assert worker(service)["load_error"] == "broken: broken on purpose"
        service.wait_available()
        assert service.result(service.submit(num_inference_steps=1))["errors"] == []


def test_who_asks_for_what_is_not_there_is_told(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=DESCRIBES) as service:
        for op in ("load", "unload"):
            reply = order(service, "other", op)
            assert reply.status_code == 404 and "demo, plain" in reply.json()["detail"]
        assert service.get("/server/models/demo/load").status_code == 405
        foreign = order(service, "plain", "load", headers={"Origin": "https://example.org"})
        assert foreign.status_code == 403
        assert asked(folder) == []
        own = order(service, "plain", "load", headers={"Origin": service.url})
        assert own.status_code == 202
        eventually(lambda: loaded(service) == "plain", "it is loaded")


def test_a_busy_worker_is_409_and_one_that_is_gone_503(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=DESCRIBES) as service:
        uuid = service.submit("slow", num_inference_steps=2)
        service.wait_step(uuid)
        for op, name in (("load", "plain"), ("unload", "demo")):
            reply = order(service, name, op)
            assert reply.status_code == 409 and "busy" in reply.json()["detail"]
        service.children["gpu_worker"].send_signal(signal.SIGSTOP)
        eventually(lambda: worker(service)["state"] == "unreachable", "it is missed")
        assert order(service, "plain", "load").status_code == 503
        assert worker(service)["loaded"] is None
        service.children["gpu_worker"].send_signal(signal.SIGCONT)
        service.release()
        assert service.result(uuid)["errors"] == []
        assert asked(folder) == []


def test_a_worker_that_stops_just_then_is_503_and_loads_nothing_later(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=DESCRIBES) as service:
        service.children["gpu_worker"].send_signal(signal.SIGSTOP)
        assert order(service, "plain", "load").status_code == 503
        service.children["gpu_worker"].send_signal(signal.SIGCONT)
        service.wait_available()
        assert service.result(service.submit(num_inference_steps=1))["model"] == "demo"
        assert asked(folder) == []


def test_an_idle_worker_unloads_and_the_next_job_works(folder: Path) -> None:
    with running(
        folder, "gateway", "gpu_worker", SDE_PIPELINE=DESCRIBES, SDE_UNLOAD_AFTER_S="0.5"
    ) as service:
        eventually(lambda: loaded(service) is None, "the model has gone")
        assert asked(folder) == ["unload"]
        eventually(service.available, "it is available")
        assert service.result(service.submit(num_inference_steps=1))["errors"] == []
        eventually(lambda: asked(folder).count("unload") == 2, "it has gone again")
        assert asked(folder) == ["unload", "load demo", "unload"]


@pytest.mark.parametrize("name", ["..%2f..%2fetc", "%00", "a" * 5000, "x%0d%0ay"])
def test_a_strange_name_is_only_unknown(folder: Path, name: str) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=DESCRIBES) as service:
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as raw:
            raw.sendall(f"POST /server/models/{name}/load HTTP/1.0\r\n\r\n".encode())
            reply = b"".join(iter(lambda: raw.recv(65536), b""))
        assert reply.startswith(b"HTTP/1.0 404 ") and len(reply) < 2000
        assert asked(folder) == []


def test_two_workers_load_one_after_the_other(folder: Path) -> None:
    with running(folder, "gateway", SDE_PIPELINE=DESCRIBES, SDE_GPUS="2") as service:
        for gpu in "01":
            service.settings["SDE_GPU"] = gpu
            service.start("gpu_worker")
            service.children[f"gpu_worker-{gpu}"] = service.children.pop("gpu_worker")
        eventually(lambda: states(service) == ["idle", "idle"], "both are there")
        eventually(lambda: order(service, "slow", "load").status_code == 202, "the first one")
        service.release()
        eventually(lambda: order(service, "slow", "load").json().get("worker") == "gpu-1", "both")
        eventually(lambda: [w["loaded"] for w in workers(service)] == ["slow", "slow"], "done")
        assert order(service, "demo", "unload").status_code == 409
        for gpu in "01":
            service.kill(f"gpu_worker-{gpu}", signal.SIGTERM)


def workers(service: Service) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.get("/server/workers").json()
    return found


def states(service: Service) -> list[str]:
    return [each["state"] for each in workers(service)]
