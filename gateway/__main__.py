"""Runs the gateway: `python -m gateway` reads the settings, assembles the parts, serves HTTP.

SIGTERM stops it. With `--check` it prints its address, or the reason why it cannot start. With
`--make-key` it first makes a key if the service needs one, and further lines explain its keys.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from concurrent import futures
from concurrent.futures import Future
from types import FrameType
from typing import Any

from gateway import process_memory
from gateway.access import hosts
from gateway.access.key_file import KeyFileInvalid
from gateway.access.principal import Scope
from gateway.access.rules import AccessRules
from gateway.assembly import Gateway, access_rules, assemble, open_keyring
from gateway.dialects.doors import ERROR_SHAPES
from gateway.http.server.listener import listen
from gateway.http.server.starting_app import StartingApp
from gateway.jobs.journal import Journal
from gateway.settings import GatewaySettings
from gateway.store.gallery import labels_log
from gateway.store.indexer import IndexProgress
from gpu_worker.contract import protocol
from gpu_worker.settings import load
from gpu_worker.store import log_format, private_folder, process, result_log
from gpu_worker.store.durable import StoreTooNew
from gpu_worker.store.process import StoreLock, StoreLocked

log = logging.getLogger("gateway")

START_PATIENCE_S = 1.0
"""A start that takes longer is reported to clients. A usual one takes milliseconds."""


CHECK_PATIENCE_S = 5.0
"""How long `--check` waits for a previous service that is still stopping."""


def main() -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code (sysexits.h)."""
    process_memory.return_freed_memory()
    try:
        settings = load(GatewaySettings, os.environ)
        endpoints = {
            f"gpu-{gpu}": protocol.endpoint(settings.run_dir, gpu) for gpu in range(settings.gpus)
        }
    except ValueError as error:
        print(f"gateway: {log_format.SecretFilter(os.environ)(str(error))}", file=sys.stderr)
        return os.EX_CONFIG
    log_format.configure(settings.log_format, os.environ)
    check_only = "--check" in sys.argv[1:]
    os.umask(0o077)
    if not check_only:
        process.exit_with_parent()
    try:
        lock = _lock(settings, CHECK_PATIENCE_S if check_only else 0.0)
    except StoreLocked as error:
        print(f"gateway: {error}", file=sys.stderr)
        return os.EX_TEMPFAIL
    except OSError as error:
        print(f"gateway: SDE_DATA_DIR={settings.data_dir}: {error}", file=sys.stderr)
        return os.EX_CANTCREAT
    with lock:
        may_make_key = check_only and "--make-key" in sys.argv[1:]
        try:
            needs_key = _needs_first_key(settings, may_make_key)
            if check_only:
                return _check(settings, needs_key)
            return _serve(settings, endpoints)
        except (AccessUndecided, KeyFileInvalid) as error:
            print(f"gateway: {error}", file=sys.stderr)
            return os.EX_CONFIG
        except StoreTooNew as error:
            return _report_store(error)


class AccessUndecided(RuntimeError):
    """Others could reach the service, and nothing says who may use it. The text says what to do."""


FIRST_KEY = "owner"
"""The name of the key that `make run` makes."""


def _needs_first_key(settings: GatewaySettings, may_make_key: bool) -> bool:
    """Return whether a key is to be made before the service starts.

    Raises:
        AccessUndecided: it listens beyond loopback, no key exists, and none may be made.
        KeyFileInvalid: the file of keys cannot be used.
        StoreTooNew: a newer version wrote it.
    """
    keyring = open_keyring(settings)
    is_open = settings.allow_anonymous or settings.is_local or not hosts.has_address(settings.host)
    if is_open or not keyring.is_empty:
        return False
    if not may_make_key:
        raise AccessUndecided(
            f"SDE_HOST={settings.host} lets other machines in, and there is no key: "
            "run `sde key add NAME --admin`, or set SDE_ALLOW_ANONYMOUS=1 to admit everybody"
        )
    return True


def _about_keys(settings: GatewaySettings, needs_key: bool) -> list[str]:
    """Return lines about the keys for the terminal, after making the first key if one is needed."""
    keyring = open_keyring(settings)
    if needs_key:
        secret = keyring.add(FIRST_KEY, Scope)
        links = [f"  {url}/#key={secret}" for url in settings.public_urls]
        kind = "This link carries" if len(links) == 1 else "Each of these links carries"
        return [f"{kind} its first key, which is shown only now:", *links]
    if keyring.is_empty:
        return []
    advice = f"  sde key add NAME --data-dir '{settings.data_dir}'"
    return ["It has keys. This command makes another one:", advice]


def _lock(settings: GatewaySettings, patience_s: float) -> StoreLock:
    """Take the gateway's lock, waiting up to `patience_s`. Raises StoreLocked, OSError."""
    folders = (settings.run_dir, settings.results_dir, settings.journal_path.parent)
    private_folder.make(settings.data_dir, follow_links=True)
    private_folder.make(*folders, settings.inputs_dir, settings.thumbnails_dir)
    for folder in folders:
        private_folder.hide_files(folder)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return process.lock(settings.run_dir / "gateway.lock", "the gateway's lock")
        except StoreLocked:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)


def _check(settings: GatewaySettings, needs_key: bool) -> int:
    try:
        Journal(settings.journal_path).read()
        labels_log.read(settings.labels_path)
        result_log.refuse_newer_in(settings.results_dir)
    except OSError as error:
        return _report_store(error)
    try:
        _listen(lambda *_: [], settings).close()
    except CannotListen as error:
        print(f"gateway: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE
    # The key comes last: it is shown this one time, so nothing may fail after it.
    about_keys = _about_keys(settings, needs_key) if "--make-key" in sys.argv[1:] else []
    print(settings.public_urls[0], *about_keys, sep="\n")
    return 0


class CannotListen(RuntimeError):
    """The gateway cannot listen; the text names the settings and the reason."""


def _listen(app: Any, settings: GatewaySettings, access: AccessRules | None = None) -> Any:
    message = f"cannot listen on SDE_HOST={settings.host} SDE_PORT={settings.port}"
    try:
        limits, prefix = settings.http_limits, settings.path_prefix
        return listen(app, settings.host, settings.port, limits, prefix, access, ERROR_SHAPES)
    except OSError as error:
        raise CannotListen(f"{message}: {error.strerror or error}") from None
    except ValueError:  # waitress raises it for a host name without an address
        raise CannotListen(f"{message}: the host name has no address") from None


def _serve(settings: GatewaySettings, endpoints: dict[str, str]) -> int:
    progress, access = IndexProgress(), access_rules(settings)
    start = _assemble_in_thread(settings, endpoints, progress, access)
    is_stopping = process.SignalEvent()

    def stop(signum: int, frame: FrameType | None) -> None:
        is_stopping.set()
        if start.done() and start.exception() is None:
            start.result().stopping.set()
        # waitress closes on SystemExit and KeyboardInterrupt only.
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    futures.wait([start], START_PATIENCE_S)
    if start.done() and isinstance(start.exception(), OSError):
        return _report_store(start.exception())
    app = StartingApp(progress, access, ERROR_SHAPES)
    try:
        server = _listen(app, settings, access)
    except CannotListen as error:
        print(f"gateway: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE
    start.add_done_callback(lambda assembled: _begin(assembled, app, is_stopping))
    log.info("the gateway listens on %s", settings.url)
    server.run()
    return 0


def _assemble_in_thread(
    settings: GatewaySettings,
    endpoints: dict[str, str],
    progress: IndexProgress,
    access: AccessRules,
) -> Future[Gateway]:
    """Assemble the gateway, while the main thread may answer that it is not ready yet."""
    start: Future[Gateway] = Future()

    def run() -> None:
        try:
            start.set_result(assemble(settings, endpoints, progress, access))
        except BaseException as error:
            start.set_exception(error)

    threading.Thread(target=run, name="start", daemon=True).start()
    return start


def _begin(start: Future[Gateway], app: StartingApp, is_stopping: threading.Event) -> None:
    """Start the assembled gateway, or end the process if it could not be assembled.

    A signal to stop may come meanwhile. It raises SystemExit here if this is the main thread. Else
    the interpreter ends around this thread, and what fails then is no failure.
    """
    try:
        service = start.result()
        service.start()
        app.become(service.app)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        if is_stopping.is_set():
            return
        if isinstance(error, OSError):
            os._exit(_report_store(error))
        log.critical("the gateway cannot start", exc_info=True)
        os._exit(os.EX_SOFTWARE)


def _report_store(error: BaseException | None) -> int:
    print(f"gateway: the store cannot be read: {error}", file=sys.stderr, flush=True)
    return os.EX_UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main())
