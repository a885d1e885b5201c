"""The gateway: `python -m gateway`. Settings -> wiring -> waitress; SIGTERM ends it."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from gateway.assembly import assemble
from gateway.settings import GatewaySettings
from gateway.web_server import listen
from gpu_worker import process, protocol
from gpu_worker.process import StoreLocked
from gpu_worker.settings import load

EX_UNAVAILABLE, EX_CANTCREAT, EX_TEMPFAIL, EX_CONFIG = 69, 73, 75, 78  # sysexits.h


def main() -> int:
    """Serve until SIGTERM or SIGINT; exits as sysexits.h says. `--check` only reads settings."""
    process.log_to_stderr()
    try:
        settings = load(GatewaySettings, os.environ)
        endpoints = {
            f"gpu-{gpu}": protocol.endpoint(settings.run_dir, gpu) for gpu in range(settings.gpus)
        }
    except ValueError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return EX_CONFIG
    if "--check" in sys.argv[1:]:
        return 0
    os.umask(0o077)
    process.leave_with_supervisor()
    try:
        process.make_directories(
            settings.run_dir,
            settings.results_dir,
            settings.journal_path.parent,
            settings.inputs_dir,
        )
        held = process.lock(settings.run_dir / "gateway.lock", "the gateway's place")
    except StoreLocked as error:
        print(f"gateway: {error}", file=sys.stderr)
        return EX_TEMPFAIL
    except OSError as error:
        print(f"gateway: SDE_DATA_DIR={settings.data_dir}: {error}", file=sys.stderr)
        return EX_CANTCREAT
    with held:
        return _serve(settings, endpoints)


def _serve(settings: GatewaySettings, endpoints: dict[str, str]) -> int:
    try:
        service = assemble(settings, endpoints)
    except OSError as error:
        print(f"gateway: the store cannot be read: {error}", file=sys.stderr)
        return EX_UNAVAILABLE

    def leave(signum: int, frame: FrameType | None) -> None:
        service.stopping.set()
        # waitress closes on SystemExit and KeyboardInterrupt only.
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    try:
        server = listen(service.app, settings.host, settings.port, settings.max_body_mib << 20)
    except OSError as error:
        print(
            f"gateway: cannot listen on SDE_HOST={settings.host} SDE_PORT={settings.port}: "
            f"{error.strerror or error}",
            file=sys.stderr,
        )
        return EX_UNAVAILABLE
    service.start()
    print(f"gateway: listening on http://{settings.host}:{settings.port}", file=sys.stderr)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
