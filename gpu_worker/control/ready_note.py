"""Notes that the first model is loaded, so that the terminal of run.sh can say so.

`python -m gpu_worker.control.ready_note FOLDER URL` waits for a worker and for the gateway at URL,
prints one line and ends.
"""

from __future__ import annotations

import contextlib
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from gpu_worker.store import durable, process

POLL_S = 0.2
TIMEOUT_S = 2.0


def write(path: Path, model: str, device: str) -> None:
    """Note what is ready. A full disk costs only this file."""
    with contextlib.suppress(OSError):
        durable.replace(path, f"{model} on {device}\n".encode())


def wait(folder: Path, url: str, since: float) -> str:
    """Return the line for the terminal, once a worker is ready and the gateway answers.

    Args:
        since: a time in seconds since 1970; a note of before does not count.
    """
    address = url.partition("#")[0].rstrip("/")
    while True:
        for path in sorted(folder.glob("*.ready")):
            with contextlib.suppress(OSError, ValueError):
                if path.stat().st_mtime >= since and _answers(address):
                    return f"ready: {path.read_text(encoding='utf-8').strip()}, {address}"
        time.sleep(POLL_S)


def _answers(address: str) -> bool:
    """Return whether the gateway answers; this machine may not know its public name."""
    parts = urlsplit(address)
    for host in (parts.netloc, f"127.0.0.1:{parts.port}"):
        probe = parts._replace(netloc=host, path=f"{parts.path}/healthz").geturl()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with (
            contextlib.suppress(OSError, urllib.error.URLError),
            opener.open(probe, None, TIMEOUT_S),
        ):
            return True
    return False


if __name__ == "__main__":
    process.end_with_parent()
    with contextlib.suppress(KeyboardInterrupt):
        print(wait(Path(sys.argv[1]), sys.argv[2], time.time() - 1), flush=True)
