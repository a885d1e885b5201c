"""The gateway: `python -m gateway`. Settings -> wiring -> waitress; SIGTERM ends it.

`--check` says what would keep it from starting, else prints its address.
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
"""An earlier service that is just leaving is waited for."""


def main() -> int:
    """Serve until SIGTERM or SIGINT; exits as sysexits.h says."""
    process.log_to_stderr()
    try:
        settings = load(GatewaySettings, os.environ)
        endpoints = {
            f"gpu-{gpu}": protocol.endpoint(settings.run_dir, gpu) for gpu in range(settings.gpus)
        }
    except ValueError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return os.EX_CONFIG
    checks = "--check" in sys.argv[1:]
    os.umask(0o077)
    if not checks:
        process.exit_with_parent()
    try:
        held = _held(settings, CHECK_PATIENCE_S if checks else 0.0)
    except StoreLocked as error:
        print(f"gateway: {error}", file=sys.stderr)
        return os.EX_TEMPFAIL
    except OSError as error:
        print(f"gateway: SDE_DATA_DIR={settings.data_dir}: {error}", file=sys.stderr)
        return os.EX_CANTCREAT
    with held:
        return _check(settings) if checks else _serve(settings, endpoints)


def _held(settings: GatewaySettings, patience_s: float) -> IO[str]:
    """The lock on its place. Raises StoreLocked when the patience is at its end; OSError."""
    process.make_directories(
        settings.run_dir,
        settings.results_dir,
        settings.journal_path.parent,
        settings.inputs_dir,
    )
    ends = time.monotonic() + patience_s
    while True:
        try:
            return process.lock(settings.run_dir / "gateway.lock", "the gateway's place")
        except StoreLocked:
            if time.monotonic() >= ends:
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
    """The address cannot be had; the text names the settings and says why."""


def _listen(app: Any, settings: GatewaySettings) -> Any:
    where = f"cannot listen on SDE_HOST={settings.host} SDE_PORT={settings.port}"
    try:
        return listen(app, settings.host, settings.port, settings.max_body_mib << 20)
    except OSError as error:
        raise CannotListen(f"{where}: {error.strerror or error}") from None
    except ValueError:  # waitress's, of a name that stands for no address
        raise CannotListen(f"{where}: there is no such address") from None


def _serve(settings: GatewaySettings, endpoints: dict[str, str]) -> int:
    try:
        service = assemble(settings, endpoints)
    except OSError as error:
        print(f"gateway: the store cannot be read: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE

    def leave(signum: int, frame: FrameType | None) -> None:
        service.stopping.set()
        # waitress closes on SystemExit and KeyboardInterrupt only.
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
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
