"""Checks the running service: its address, supervisord and the workers. None need run."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.access import keys
from gateway.doctor.finding import Finding, ok, problem, warning
from gateway.settings import GatewaySettings
from gpu_worker.store import durable, exit_report, process

ANSWER_S = 5.0

_GOOD_STATES = ("STARTING", "RUNNING")


def check(settings: GatewaySettings, key: str | None) -> Iterator[Finding]:
    """Yield findings on the address, the processes and the workers.

    Args:
        key: the key of SDE_KEY. Without a valid one the files of the workers are read.
    """
    yield from _supervisord(settings.run_dir)
    pid = process.live_holder(settings.run_dir / "gateway.lock")
    address = f"{settings.host} port {settings.port}"
    reason = _bind_error(settings.host, settings.port)
    if reason is None and pid is None:
        yield ok("address", f"{address} is free, and the service does not run")
        yield from _workers_by_files(settings, is_running=False)
    elif reason is None:
        text = f"the gateway (process {pid}) runs and does not listen on {address}"
        yield warning("address", f"{text}: it was started with other settings, or has just begun")
        yield from _workers_by_files(settings, is_running=True)
    elif pid is None:
        text = f"{address} cannot be used ({reason})"
        yield problem("address", f"{text}: end that program, or set SDE_PORT or SDE_HOST")
    else:
        yield from _gateway(settings, pid, key)


def _bind_error(host: str, port: int) -> str | None:
    """Return why the gateway could not listen there now; None if it could."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _gateway(settings: GatewaySettings, pid: int, key: str | None) -> Iterator[Finding]:
    try:
        status, workers = _get(settings, "/server/workers", key)
        _, storage = _get(settings, "/server/storage", key)
    except (OSError, http.client.HTTPException, ValueError) as error:
        text = f"the gateway (process {pid}) does not answer at {settings.url}: {error}"
        yield problem("gateway", f"{text}; look at `sde logs gateway`")
        yield from _workers_by_files(settings, is_running=True)
        return
    if status != http.client.OK or not isinstance(workers, list):
        yield _refusal(settings, status, key)
        yield from _workers_by_files(settings, is_running=True)
        return
    yield ok("gateway", f"it answers at {settings.url} (process {pid})")
    for worker in workers:
        yield _worker(worker, settings.run_dir)
    if isinstance(storage, dict) and storage.get("trouble"):
        yield problem("store", f"{storage['trouble']}; no job is accepted until that is mended")
    if isinstance(storage, dict) and storage.get("damaged_lines"):
        text = f"{storage['damaged_lines']} damaged lines are skipped: run `sde fsck`"
        yield warning("store", text)


def _refusal(settings: GatewaySettings, status: int, key: str | None) -> Finding:
    if status != http.client.UNAUTHORIZED:
        return problem("gateway", f"{settings.url} answers {status}; look at `sde logs gateway`")
    text = f"it answers at {settings.url}"
    if key:
        return warning("gateway", f"{text}, and refuses the key of SDE_KEY: set a valid one")
    return ok("gateway", f"{text}, and needs a key; with SDE_KEY more is checked")


def _workers_by_files(settings: GatewaySettings, is_running: bool) -> Iterator[Finding]:
    """Yield what the files of the workers say of failures, where no service can be asked."""
    for number in range(settings.gpus):
        finding = _by_files(settings.run_dir, f"gpu-{number}", is_running)
        if finding is not None:
            yield finding


def _by_files(run_dir: Path, name: str, is_running: bool) -> Finding | None:
    """Return what the files of a worker say of a failure.

    A load error stays until the model is loaded, and a report until a job has its outcome.
    """
    serious = problem if is_running else warning
    with contextlib.suppress(OSError, ValueError):
        content = durable.read_plain(run_dir / f"{name}.load_error").decode()
        reason = content.partition("\n")[2].strip()
        if reason:
            return serious(name, f"it cannot load {reason}; look at `sde logs {name}`")
    report = exit_report.read(exit_report.path(run_dir, name))
    if not report.reason:
        return None
    level = serious if report.is_loop else warning
    return level(name, f"it ended: {report.reason}; look at `sde logs {name}`")


def _worker(worker: dict[str, Any], run_dir: Path) -> Finding:
    name, state = str(worker.get("name")), str(worker.get("state"))
    reason = worker.get("load_error") or worker.get("last_error")
    restarts = worker.get("restarts") or 0
    times = "once" if restarts == 1 else f"{restarts} times"
    text = f"{state}, started again {times}" if restarts else state
    if state in ("idle", "busy"):
        return warning(name, f"{text}; before: {reason}") if reason else ok(name, text)
    if reason:
        return problem(name, f"{text}: {reason}; look at `sde logs {name}`")
    return _by_files(run_dir, name, is_running=True) or warning(
        name, f"{text}; look at `sde logs {name}`"
    )


def _get(settings: GatewaySettings, path: str, key: str | None) -> tuple[int, Any]:
    """Return the status and the JSON of a route. Raises OSError, HTTPException, ValueError."""
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    host = anywhere.get(settings.host, settings.host)
    connection = http.client.HTTPConnection(host, settings.port, timeout=ANSWER_S)
    with contextlib.closing(connection):
        # What no key can be is not sent: an error of http.client would quote it.
        headers = {"Authorization": f"Bearer {key}"} if key and keys.is_secret(key) else {}
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        content = reply.read()
        return reply.status, json.loads(content)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over the socket of supervisord."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_S)
        self.sock.connect(self._path)


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = str(path)

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _UnixConnection(self._path)


def _supervisord(run_dir: Path) -> Iterator[Finding]:
    place = run_dir / "supervisor.sock"
    if not place.exists():
        if process.live_holder(run_dir / "supervisord.pid") is None:
            yield ok("supervisord", "it does not run; `make run` starts it")
        else:
            yield problem("supervisord", "it runs without its socket: start the service again")
        return
    proxy = xmlrpc.client.ServerProxy("http://localhost", transport=_UnixTransport(place))
    try:
        processes: Any = proxy.supervisor.getAllProcessInfo()
    except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
        if process.live_holder(run_dir / "supervisord.pid") is None:
            yield ok("supervisord", "it does not run; `make run` starts it")
        else:
            yield problem("supervisord", f"it does not answer ({error}): start the service again")
        return
    for each in processes:
        text = f"{each['name']} is {each['statename']} ({each['description']})"
        if each["statename"] in _GOOD_STATES:
            yield ok("supervisord", text)
        else:
            yield problem("supervisord", f"{text}: look at `sde logs`")
