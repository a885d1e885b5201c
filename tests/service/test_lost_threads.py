"""Rows 1 and 16: a process short of descriptors recovers, and one without a thread ends."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import zmq

from gpu_worker.contract import protocol
from tests.support.service import DEADLINE_S, ROOT, Service, environment, eventually, running

NO_LIMIT = (resource.getrlimit(resource.RLIMIT_NOFILE)[0], resource.RLIM_INFINITY)


def limit_descriptors(service: Service, name: str, count: int | None) -> None:
    """The process may open no further file (3 are open for ever), or as many as before."""
    hard = psutil.Process(service.children[name].pid).rlimit(psutil.RLIMIT_NOFILE)[1]
    soft = NO_LIMIT[0] if count is None else count
    psutil.Process(service.children[name].pid).rlimit(psutil.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def service(folder: Path) -> object:
    with running(folder, "gateway", "gpu_worker", SDE_QUEUE_SIZE="4") as service:
        yield service


def test_a_worker_short_of_descriptors_answers_and_works_again(service: Service) -> None:
    """Row 1 (fault 2): the status needs no file, and what needs one waits."""
    pid = service.children["gpu_worker"].pid
    limit_descriptors(service, "gpu_worker", 3)
    uuid = service.submit("without a descriptor")
    eventually(lambda: service.job(uuid)["errors"], "the worker says that it cannot open a file")
    (worker,) = service.get("/server/workers").json()
    assert worker["state"] == "busy" and worker["memory_bytes"] is None
    limit_descriptors(service, "gpu_worker", None)
    assert service.result(uuid)["state"] == "succeeded"
    service.wait_available()
    assert service.get("/server/workers").json()[0]["memory_bytes"] > 0
    assert (
        service.children["gpu_worker"].pid == pid and service.children["gpu_worker"].poll() is None
    )


def test_a_worker_short_of_descriptors_takes_a_new_gateway(service: Service) -> None:
    """Row 1 (fault 2): a connection that could not be accepted is accepted later."""
    limit_descriptors(service, "gpu_worker", 3)
    service.kill("gateway")
    service.start("gateway")
    service.wait_answering()
    limit_descriptors(service, "gpu_worker", None)
    if service.children["gpu_worker"].poll() is not None:  # supervisord would start it again
        service.start("gpu_worker")
    service.wait_available()
    assert service.result(service.submit())["state"] == "succeeded"


def test_a_gateway_short_of_descriptors_serves_again(service: Service) -> None:
    """Row 16 (fault 2): its dispatcher opens a new socket as soon as it can."""
    limit_descriptors(service, "gateway", 3)
    service.kill("gpu_worker")
    service.start("gpu_worker")
    limit_descriptors(service, "gateway", None)
    service.wait_available()
    assert service.result(service.submit())["state"] == "succeeded"


DEAD_CONTROL = """
import sys, threading
from gpu_worker.contract.protocol import Request, encode
from gpu_worker.control.server import ControlServer
from gpu_worker.control.slots import Slots

def status():
    raise OSError(24, "Too many open files")

ControlServer("ipc://" + sys.argv[1], status, Slots()).start()
print("bound", flush=True)
threading.Event().wait()
"""


def test_a_worker_whose_control_thread_dies_ends(folder: Path) -> None:
    """Row 1 (fault 2): supervisord replaces a process, not a thread."""
    path = folder / "s"
    child = subprocess.Popen(
        [sys.executable, "-c", DEAD_CONTROL, str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(folder, 1),
    )
    assert child.stdout is not None and child.stdout.readline() == b"bound\n"
    socket = zmq.Context.instance().socket(zmq.REQ)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(f"ipc://{path}")
    socket.send(protocol.encode(protocol.Request(op="status", deadline=1e9)))
    _, errors = child.communicate(timeout=DEADLINE_S)
    socket.close()
    assert child.returncode == os.EX_SOFTWARE
    assert b"the thread control has died" in errors


DEAD_GATEWAY = """
import sys
from gateway.jobs.broker import Broker
from gateway.jobs import retention
from gateway.__main__ import main

def fails(*_):
    raise MemoryError("of the test")

{sabotage}
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("name", "sabotage"),
    [
        ("dispatch-gpu-0", "Broker.wait_for_work = fails; Broker.workers = fails"),
        ("housekeeping", "retention.time.sleep = fails"),
    ],
)
def test_a_gateway_whose_thread_dies_ends(folder: Path, name: str, sabotage: str) -> None:
    """Row 16 (fault 2): no living gateway without its dispatcher or its housekeeping."""
    command = [sys.executable, "-c", DEAD_GATEWAY.format(sabotage=sabotage)]
    with running(folder) as service:
        service.start("gateway", command)
        child = service.children.pop("gateway")
        assert child.wait(DEADLINE_S) == os.EX_SOFTWARE
        assert f"the thread {name} has died" in service.output()
