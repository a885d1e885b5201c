"""Runs the gateway: `python -m gateway` reads the settings, assembles the parts, serves HTTP.

SIGTERM stops it. With `--check` it prints its address, or the reason why it cannot start.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType
from typing import IO, Any

from gateway.assembly import assemble
from gateway.http.waitress_server import listen
from gateway.settings import GatewaySettings
from gpu_worker.contract import protocol
from gpu_worker.settings import load
from gpu_worker.store import process
from gpu_worker.store.process import StoreLocked

CHECK_PATIENCE_S = 5.0
"""How long `--check` waits for a previous service that is still stopping."""


def main() -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code (sysexits.h)."""
    process.log_to_stderr()
    try:
        settings = load(GatewaySettings, os.environ)
        endpoints = {
            f"gpu-{gpu}": protocol.endpoint(settings.run_dir, gpu) for gpu in range(settings.gpus)
        }
    except ValueError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return os.EX_CONFIG
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
        return _check(settings) if check_only else _serve(settings, endpoints)


def _lock(settings: GatewaySettings, patience_s: float) -> IO[str]:
    """Take the gateway's lock, waiting up to `patience_s`. Raises StoreLocked, OSError."""
    process.make_directories(
        settings.run_dir,
        settings.results_dir,
        settings.journal_path.parent,
        settings.inputs_dir,
    )
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return process.lock(settings.run_dir / "gateway.lock", "the gateway's lock")
        except StoreLocked:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)


def _check(settings: GatewaySettings) -> int:
    try:
        _listen(lambda *_: [], settings).close()
    except CannotListen as error:
        print(f"gateway: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE
    print(settings.url)
    return 0


class CannotListen(RuntimeError):
    """The gateway cannot listen; the text names the settings and the reason."""


def _listen(app: Any, settings: GatewaySettings) -> Any:
    message = f"cannot listen on SDE_HOST={settings.host} SDE_PORT={settings.port}"
    try:
        return listen(app, settings.host, settings.port, settings.max_body_mib << 20)
    except OSError as error:
        raise CannotListen(f"{message}: {error.strerror or error}") from None
    except ValueError:  # waitress raises it for a host name without an address
        raise CannotListen(f"{message}: the host name has no address") from None


def _serve(settings: GatewaySettings, endpoints: dict[str, str]) -> int:
    try:
        service = assemble(settings, endpoints)
    except OSError as error:
        print(f"gateway: the store cannot be read: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE

    def stop(signum: int, frame: FrameType | None) -> None:
        service.stopping.set()
        # waitress closes on SystemExit and KeyboardInterrupt only.
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    try:
        server = _listen(service.app, settings)
    except CannotListen as error:
        print(f"gateway: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE
    service.start()
    print(f"gateway: listening on {settings.url}", file=sys.stderr)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
