"""Cannot be started while the file `vice` is in SDE_DATA_DIR; its text says what happens."""

from __future__ import annotations

import ctypes
import importlib
import os
import signal

from gpu_worker.settings import WorkerSettings
from tests.pipelines.instant import Instant


def load(settings: WorkerSettings) -> Instant:
    """Ends the process in the way of the file, or loads."""
    vice = settings.data_dir / "vice"
    match vice.read_text() if vice.exists() else "":
        case "segfault":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os.write(2, b"libcuda.so.1: cannot open shared object file\n")
            os._exit(3)
        case "import":
            importlib.import_module("a_module_that_nobody_has")
        case "base exception":
            raise SystemExit("the driver is too old")
    return Instant()
