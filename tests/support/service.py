"""Starts the real service for a test: supervisord or single processes, own port and folder.

Waits for states with a deadline, never for a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import requests

from tests.support.network import guarded

ROOT = Path(__file__).parent.parent.parent
DEADLINE_S = 120.0
"""A busy machine is slow; only a test that fails ever waits so long."""

PORTS = range(20_000, 32_000)
"""Below those that Linux gives to outgoing connections (ip(7), ip_local_port_range)."""

Found = TypeVar("Found")


def eventually(look: Callable[[], Found], what: str, deadline_s: float = DEADLINE_S) -> Found:
    """Look again and again until the answer is true; it is returned."""
    ends = time.monotonic() + deadline_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > ends:
            raise AssertionError(f"not within {deadline_s} s: {what}")
        time.sleep(0.01)


_reserved: list[socket.socket] = []
"""UDP sockets: each keeps its number from the other processes of this test run."""


def free_port() -> int:
    """A TCP port that nobody listens on, and that no other test gets while this process lives."""
    for port in random.sample(PORTS, len(PORTS)):
        guard = socket.socket(type=socket.SOCK_DGRAM)
        try:
            guard.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            guard.close()
            continue
        _reserved.append(guard)
        return port
    raise AssertionError("every port is taken")


def send_until_it_ends(child: subprocess.Popen[Any], number: int, pause_s: float = 5.0) -> None:
    """A signal, as a person sends it: once more when nothing follows. Python misses one that comes
    just before it waits in the kernel."""
    ends = time.monotonic() + DEADLINE_S
    while time.monotonic() < ends:
        child.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(pause_s)
            return
    raise AssertionError(f"still there after signal {number}: {child.args!r}")


def environment(data_dir: Path, port: int, **settings: str) -> dict[str, str]:
    """The test's own environment: no SDE_ name of the outside world."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SDE_") and k != "MACHINE_SIZE"}
    for name in ("HF_HOME", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        kept.pop(name, None)
    return {
        **kept,
        **guarded(),
        "SDE_DATA_DIR": str(data_dir),
        "SDE_PORT": str(port),
        "SDE_PIPELINE": "tests.pipelines.instant:load",
        "SDE_PYTHON": sys.executable,
        **settings,
    }


def run_module(
    data_dir: Path, *command: str, timeout_s: float = 60, **settings: str
) -> subprocess.CompletedProcess[str]:
    """A process that does not stay: `python -m` with these words, in the test's own environment."""
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment(data_dir, free_port(), **settings),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


LEAK = re.compile(
    r"\w(?:Error|Exception)\b|Traceback|<class '|"
    r"(?<![\w.:/])/(?:tmp|work|home|usr|root|proc|srv|data|opt|var|mnt)/|"
    r"Input should|should have|should match|Field required|validation error|pydantic"
)
"""What no answer may hold: an exception's name, a path of the server, pydantic's own sentences."""


def checked(reply: requests.Response) -> requests.Response:
    """Every error that any test receives is looked at."""
    if reply.status_code >= 400:
        assert not LEAK.search(reply.text), reply.text
    return reply


STARTING = 503
"""The status of every route while the index of a large store is built."""


@dataclass
class Service:
    """One running service and what a test does with it."""

    data_dir: Path
    port: int
    settings: dict[str, str]
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # ---- processes ----------------------------------------------------------------------------

    def start(self, name: str, command: list[str] | None = None) -> None:
        """`gateway`, `gpu_worker` or `supervisor`, by its usual command unless another is given."""
        usual = [sys.executable, "-m", name] if name != "supervisor" else ["./run.sh"]
        # Else the service would refuse a folder with an unknown file.
        (self.data_dir / "disk_backups").mkdir(mode=0o700, exist_ok=True)
        log = open(self.data_dir / f"{name}.out", "ab")
        with log:
            self.children[name] = subprocess.Popen(
                command or usual,
                cwd=ROOT,
                env=environment(self.data_dir, self.port, **self.settings),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Signal a child started here, and reap it."""
        child = self.children.pop(name)
        child.send_signal(number)
        child.wait(DEADLINE_S)

    def stop(self) -> None:
        """End everything that is left, the supervised ones too."""
        for name in list(self.children):
            self.kill(name, signal.SIGTERM)
        for orphan in self.processes():
            orphan.kill()

    def processes(self, module: str | None = None) -> list[psutil.Process]:
        """Live processes of this very service (known by its data folder)."""
        found = []
        for process in psutil.process_iter():
            try:
                line = process.cmdline()
                ours = process.environ().get("SDE_DATA_DIR") == str(self.data_dir)
                alive = process.status() != psutil.STATUS_ZOMBIE
            except psutil.Error:
                continue
            if ours and alive and (module is None or line[1:] == ["-m", module]):
                found.append(process)
        return found

    def output(self) -> str:
        """All that the processes have written."""
        logs = [*self.data_dir.glob("*.out"), *self.data_dir.glob("run/*.log")]
        return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')}" for p in logs)

    # ---- HTTP ---------------------------------------------------------------------------------

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request, with the key of SDE_KEY if the test set one."""
        key = self.settings.get("SDE_KEY")
        if key is not None:
            options["headers"] = {"Authorization": f"Bearer {key}", **options.get("headers", {})}
        return checked(requests.request(method, self.url + path, timeout=DEADLINE_S, **options))

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.request("GET", path, **options)

    def post(self, body: object, **options: Any) -> requests.Response:
        """POST /image/generate; a dict goes as JSON, bytes go as they are."""
        if isinstance(body, bytes):
            options.setdefault("headers", {"Content-Type": "application/json"})
            return self.request("POST", "/image/generate", data=body, **options)
        return self.request("POST", "/image/generate", json=body, **options)

    def submit(self, prompt: str = "a test", **parameters: Any) -> str:
        """Accepted, or the test fails."""
        reply = self.post({"prompt": prompt, **parameters})
        assert reply.status_code == 200, reply.text
        uuid: str = reply.json()["generation_uuid"]
        return uuid

    def job(self, uuid: str) -> dict[str, Any]:
        reply = self.get(f"/image/jobs/{uuid}")
        assert reply.status_code == 200, reply.text
        job: dict[str, Any] = reply.json()
        return job

    def available(self) -> bool:
        try:
            return bool(self.get("/server/status").json() == {"is_available": True})
        except requests.ConnectionError:
            return False

    def release(self, uuid: str | None = None) -> None:
        """This job of tests.pipelines.held goes on; None: all, and those that come."""
        (self.data_dir / (f"released.{uuid}" if uuid else "released")).touch()

    def wait_available(self) -> None:
        try:
            eventually(self.available, "the service is available")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output()}") from None

    def wait_listening(self) -> None:
        """Wait until the gateway answers, although it may still read its store."""
        eventually(lambda: self._status("/healthz") == 200, "the gateway listens")

    def wait_answering(self) -> None:
        """Wait until the gateway has read its store and serves every route."""
        eventually(lambda: self._status("/server/fields") not in (None, STARTING), "it answers")

    def _status(self, path: str) -> int | None:
        try:
            return self.get(path).status_code
        except requests.ConnectionError:
            return None

    def wait_step(self, uuid: str, step: int = 1) -> None:
        eventually(lambda: self.job(uuid)["step"] >= step, f"step {step} of {uuid}")

    def result(self, uuid: str) -> dict[str, Any]:
        """The one record of a uuid, once it is there."""
        records = self.results(uuid)
        assert len(records) == 1
        for error in records[0].get("errors", []):
            assert not LEAK.search(error), error
        return records[0]

    def results(self, uuid: str) -> list[dict[str, Any]]:
        """All records of a uuid, once they are there."""

        def look() -> list[dict[str, Any]]:
            try:
                found: list[dict[str, Any]] = self.get(
                    "/image/generate", params={"generation_uuid": uuid}
                ).json()
            except requests.ConnectionError:
                return []
            return found

        try:
            return eventually(look, f"a result of {uuid}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output()}") from None

    def lines(self) -> list[dict[str, Any]]:
        """Every record in the logs, as it stands on the disk."""
        logs = sorted((self.data_dir / "disk_backups").glob("*.jsonl"))
        return [json.loads(line) for log in logs for line in log.read_bytes().splitlines()]


@contextmanager
def running(data_dir: Path, *names: str, **settings: str) -> Iterator[Service]:
    """A service whose named processes are started; all of them end with the block."""
    data_dir.mkdir(parents=True, exist_ok=True)
    service = Service(data_dir, free_port(), settings)
    try:
        for name in names:
            service.start(name)
        if "gateway" in names or "supervisor" in names:
            service.wait_answering()
        if "gpu_worker" in names or "supervisor" in names:
            service.wait_available()
        yield service
    finally:
        service.stop()
