"""The gateway: `python -m gateway`. Settings -> wiring -> waitress; SIGTERM ends it."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

import waitress.server

from gateway.assembly import assemble
from gateway.settings import GatewaySettings
from gpu_worker import process, protocol
from gpu_worker.process import StoreLocked
from gpu_worker.settings import load

SERVER_THREADS = 16
"""Half of them may wait for a job's next change (gateway/jobs.py)."""

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
            settings.run_dir, settings.results_dir, settings.journal_path.parent
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
    signal.signal(signal.SIGTERM, _leave)
    try:
        server = _listen(settings, service.app)
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


def _listen(settings: GatewaySettings, app: Any) -> Any:
    return waitress.server.create_server(
        app,
        host=settings.host,
        port=settings.port,
        threads=SERVER_THREADS,
        connection_limit=500,
        asyncore_use_poll=True,  # select() ends the process beyond ~1000 connections
        backlog=128,
        channel_timeout=30,
        cleanup_interval=2,
        channel_request_lookahead=0,
        max_request_header_size=32768,
        max_request_body_size=2 << 20,
        outbuf_overflow=8 << 20,  # else every picture over 1 MB goes through a temporary file
        expose_tracebacks=False,
        ident=None,
    )


def _leave(signum: int, frame: FrameType | None) -> None:
    # waitress closes on SystemExit and KeyboardInterrupt only.
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
