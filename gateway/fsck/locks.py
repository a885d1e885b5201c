"""Finds out which processes run on a store, and holds all locks of it."""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import ExitStack
from pathlib import Path

from gpu_worker.settings import Settings
from gpu_worker.store import private_folder, process

_WORKERS_FILE = re.compile(r"(gpu-\d+)\.")


def names(folder: Path, writers: set[str] | None = None) -> list[str]:
    """Return the names of the files in the results folder.

    Args:
        writers: the workers whose files are included; None includes all.
    """
    file_names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [name for name in file_names if writers is None or _worker_of(name) in {None, *writers}]


def is_live(settings: Settings, writer: str) -> bool:
    """Return whether a process holds the lock of `gateway` or `gpu-N`. No file is created."""
    try:
        descriptor = os.open(_path(settings, writer), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        # The lock is shared, so that two checks at a time do not see each other as the service.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def hold_all(settings: Settings, locks: ExitStack) -> set[str]:
    """Lock the gateway and the store of every worker that has ever run here.

    Returns:
        These workers. A new worker that starts now is not among them.

    Raises:
        StoreLocked: a process of the service is running.
        OSError: a lock file cannot be created.
    """
    private_folder.make(settings.data_dir, follow_links=True)
    private_folder.make(settings.run_dir, settings.results_dir)
    locks.enter_context(process.lock(_path(settings, "gateway"), "the gateway's lock"))
    locked_workers: set[str] = set()
    while True:
        workers = {_worker_of(name) for name in names(settings.results_dir)}
        new_workers = sorted(
            worker for worker in workers if worker is not None and worker not in locked_workers
        )
        if not new_workers:
            return locked_workers
        for worker in new_workers:
            store = _path(settings, worker)
            locks.enter_context(process.lock(store, "the result store"))
            locked_workers.add(worker)


def _worker_of(name: str) -> str | None:
    match = _WORKERS_FILE.match(name)
    return match[1] if match else None


def _path(settings: Settings, writer: str) -> Path:
    if writer == "gateway":
        return settings.run_dir / "gateway.lock"
    return settings.results_dir / f"{writer}.lock"
