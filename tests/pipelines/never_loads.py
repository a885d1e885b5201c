"""Loads for ever, as a model does that comes over a slow line."""

from __future__ import annotations

import threading
from typing import NoReturn

from gpu_worker.settings import WorkerSettings


def load(settings: WorkerSettings) -> NoReturn:
    while True:
        threading.Event().wait(3600)
