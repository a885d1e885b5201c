"""Rows 54 and 55: who may speak to a worker, in which words, and what a wrong version is told."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import zmq

from gateway.workers import worker_link
from gateway.workers.worker_link import WorkerLink, WorkerMismatch, WorkerRefused, WorkerUnavailable
from gpu_worker.contract import protocol
from gpu_worker.contract.protocol import ProtocolError, Reply, Request, VersionMismatch
from gpu_worker.control.server import ControlServer
from gpu_worker.control.slots import Slots
from tests.support.journal_jobs import job
from tests.support.service import ROOT, Service, eventually, running


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="sde-"))
    with running(folder, "gateway", "gpu_worker") as service:
        yield service
    shutil.rmtree(folder, ignore_errors=True)


def asked(service: Service, *frames: bytes) -> dict[str, Any]:
    with zmq.Context.instance().socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, 30_000)
        socket.connect(f"ipc://{service.data_dir}/run/gpu-0.sock")
        socket.send_multipart(frames)
        reply: dict[str, Any] = orjson.loads(socket.recv())
        return reply


def request(**changes: Any) -> bytes:
    plain = Request(op="status", deadline=1e9).model_dump(mode="json")
    return orjson.dumps(plain | changes)


JOB = job(1).model_dump(mode="json")

WRONG: list[bytes] = [
    b"",
    b"\x00",
    b"{",
    b"[]",
    b"null",
    b"4",
    pickle.dumps({"v": 4, "op": "status"}),
    b"[" * 100_000,
    b'{"v":4,"op":"status","deadline":1e9,"job":' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
    b'{"op":"status","deadline":1e9}',
    b'{"v":4,"op":"status","deadline":NaN}',
    b'{"v":4,"op":"status","deadline":Infinity}',
    b'{"v":4,"op":"status","deadline":1e999}',
    request(v="4"),
    request(v=4.0),
    request(v=True),
    request(deadline="1e9"),
    request(deadline=True),
    request(deadline=None),
    request(op="exec"),
    request(op=["status"]),
    request(further=1),
    request(uuid=7),
    request(uuid=job(1).uuid),
    request(job=JOB),
    request(op="submit"),
    request(op="submit", job={**JOB, "further": 1}),
    request(op="submit", job={**JOB, "sequence": "1"}),
    request(op="submit", job={**JOB, "sequence": 10**18}),
    request(op="submit", job={**JOB, "uuid": "../../etc/passwd"}),
    request(op="submit", job={**JOB, "request": {"prompt": "a", "seed": 1.5}}),
    request(op="submit", job=JOB, uuid=job(1).uuid),
    request(op="cancel"),
    request(op="cancel", uuid="*"),
    request(op="rotate"),
    request(op="load", model=["a"]),
    request(op="unload", model="a"),
]


@pytest.mark.parametrize("frame", WRONG, ids=lambda frame: ascii(frame[:60]))
def test_a_wrong_message_is_an_error_and_nothing_runs(worker: Service, frame: bytes) -> None:
    """Row 55: strict JSON of one schema; a prompt in it is not repeated."""
    reply = asked(worker, frame)
    assert reply["error"] and reply["accepted"] is False and reply["status"]["slots"] == []
    assert len(reply["error"]) < 500 and "number 1" not in reply["error"]


def test_several_frames_are_an_error(worker: Service) -> None:
    """Row 55."""
    assert "one frame, not 1000" in asked(worker, *[request()] * 1000)["error"]


def test_a_long_message_ends_its_connection_alone(worker: Service) -> None:
    """Row 55: MAXMSGSIZE."""
    with zmq.Context.instance().socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"ipc://{worker.data_dir}/run/gpu-0.sock")
        socket.send_multipart([b"", b"x" * (protocol.MAX_MESSAGE_BYTES + 1)])
        assert asked(worker, request())["accepted"] is True
    assert worker.get("/server/workers").json()[0]["state"] == "idle"
    assert worker.lines() == []


STRANGER = """
import os, sys, zmq
os.setgroups([]); os.setgid(65534); os.setuid(65534)
socket = zmq.Context.instance().socket(zmq.REQ)
socket.setsockopt(zmq.LINGER, 0)
socket.setsockopt(zmq.RCVTIMEO, 500)
socket.setsockopt(zmq.SNDTIMEO, 500)
socket.connect(sys.argv[1])
try:
    socket.send(sys.argv[2].encode())
    print(socket.recv())
except zmq.ZMQError as error:
    print("nobody", error.errno == zmq.EAGAIN)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_is_not_answered(folder: Path) -> None:
    """Row 55: SO_PEERCRED, even where the folder is open to all."""
    folder.chmod(0o755)
    endpoint = f"ipc://{folder}/open"
    status = protocol.WorkerStatus(
        state=protocol.WorkerState.IDLE, boot_id="b", log="", committed=0
    )
    ControlServer(endpoint, lambda: status, Slots()).start()
    (folder / "open").chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, endpoint, request().decode()],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "nobody True\n", done.stderr
    link = WorkerLink(endpoint)
    assert link.status().accepted
    link.close()


@pytest.mark.parametrize(
    "address",
    [
        *("tcp://127.0.0.1:5555", "tcp://*:5555", "ipc://@abstract", "ipc://*", "inproc://a", ""),
        *("IPC:///tmp/a", "ipc://relative", "udp://a:1", "pgm://a", "ws://a", "vsock://2:1"),
    ],
)
def test_another_kind_of_address_is_refused(address: str) -> None:
    """Row 55: never tcp."""
    for make in (WorkerLink, lambda it: ControlServer(it, Reply, Slots()).start()):
        with pytest.raises(ValueError, match="is not a Unix socket"):
            make(address)


@pytest.mark.parametrize("module", ["gateway", "gpu_worker"])
def test_a_data_folder_that_is_an_address_is_refused(folder: Path, module: str) -> None:
    """Row 55: wherever an address could be configured."""
    environ = {**os.environ, "SDE_DATA_DIR": "tcp://10.0.0.1:5555"}
    done = subprocess.run(
        [sys.executable, "-m", module, "--check"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == os.EX_CONFIG and "never tcp" in done.stderr


@contextmanager
def replying(folder: Path, reply: bytes) -> Iterator[str]:
    """A worker that always sends these bytes."""
    endpoint = f"ipc://{folder}/run/gpu-0.sock"
    (folder / "run").mkdir(mode=0o700, exist_ok=True)
    socket = zmq.Context.instance().socket(zmq.REP)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, 50)
    socket.bind(endpoint)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            try:
                socket.recv()
            except zmq.Again:
                continue
            socket.send(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield endpoint
    finally:
        over.set()
        thread.join()
        socket.close()


def reply_of(version: int) -> bytes:
    return orjson.dumps({"v": version, "status": {"v": version, "jobs": []}, "ok": True})


@pytest.mark.parametrize("version", [1, 3, protocol.VERSION - 1, 99])
def test_gateway_and_worker_of_different_versions_say_so(folder: Path, version: int) -> None:
    """Fault 18: /server/workers, the 503 and the log name both versions."""
    sentence = f"the worker speaks protocol {version} and the gateway protocol {protocol.VERSION}"
    with replying(folder, reply_of(version)), running(folder, "gateway") as service:
        eventually(
            lambda: sentence in str(service.get("/server/workers").json()[0]["last_error"]),
            "the gateway says that the versions differ",
        )
        assert service.get("/server/workers").json()[0]["state"] == "unreachable"
        reply = service.post({"prompt": "a"})
        assert reply.status_code == 503 and sentence in reply.json()["detail"]
        assert int(reply.headers["Retry-After"]) >= 1
        service.kill("gateway")
        assert service.output().count(sentence) == 1


def test_a_worker_of_the_same_version_has_no_error(worker: Service) -> None:
    assert worker.get("/server/workers").json()[0]["last_error"] is None


def test_a_worker_logs_the_version_of_a_foreign_gateway_once(worker: Service) -> None:
    """Fault 18."""
    for _ in range(3):
        reply = asked(worker, request(v=7, op="work"))
        assert "protocol 7" in reply["error"] and f"protocol {protocol.VERSION}" in reply["error"]
    sentence = f"a gateway speaks protocol 7 and this worker protocol {protocol.VERSION}"
    assert worker.output().count(sentence) == 1


def test_a_link_names_both_versions(folder: Path) -> None:
    with replying(folder, reply_of(9)) as endpoint:
        link = WorkerLink(endpoint)
        sentence = f"protocol 9 and the gateway protocol {protocol.VERSION}"
        with pytest.raises(WorkerMismatch, match=sentence):
            link.status()


def test_a_late_reply_answers_no_later_request(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 17: the socket that missed its reply is thrown away, and a fresh one gets its own."""
    monkeypatch.setattr(worker_link, "REPLY_TIMEOUT_S", 0.2)
    folder.mkdir(exist_ok=True)
    endpoint = f"ipc://{folder}/late.sock"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as peer:
        peer.bind(endpoint)
        link = WorkerLink(endpoint)
        with pytest.raises(WorkerUnavailable):
            link.status()
        late = peer.recv_multipart()
        with pytest.raises(WorkerRefused, match="the second"):  # the first must not answer this
            answer = threading.Thread(target=_answer_in_turn, args=(peer, late))
            monkeypatch.setattr(worker_link, "REPLY_TIMEOUT_S", 30.0)
            answer.start()
            link.status()
        answer.join()
        link.close()


def _answer_in_turn(peer: zmq.Socket[bytes], late: list[bytes]) -> None:
    """Send the reply that was missed once the next request is there, and then that one's."""
    later = peer.recv_multipart()
    for address, text in ((late[:-1], "the first"), (later[:-1], "the second")):
        peer.send_multipart([*address, refusal(text)])


def refusal(text: str) -> bytes:
    golden = ROOT / "tests/golden/protocol/reply-idle.json"
    reply = protocol.decode_reply(golden.read_bytes())
    return protocol.encode(reply.model_copy(update={"error": text}))


def test_a_mismatch_is_a_protocol_error_of_its_own() -> None:
    with pytest.raises(VersionMismatch):
        protocol.decode_reply(reply_of(9))
    with pytest.raises(ProtocolError) as caught:
        protocol.decode_reply(reply_of(protocol.VERSION))
    assert not isinstance(caught.value, VersionMismatch)
