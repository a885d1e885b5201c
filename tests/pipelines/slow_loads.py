"""Loads for longer than a short deadline before its first step, as its SDE_MODEL or prompt says.

`download` writes slowly into the hub's cache in a thread, `read` reads a file slowly, `map` touches
the pages of a mapped file, and `hang` sleeps in C without the GIL. `read in a step` is too late.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import time

from gpu_worker.contract.job import Job
from gpu_worker.pipeline_api import GeneratedImage, OnStep
from gpu_worker.settings import WorkerSettings
from tests.pipelines.instant import Instant

ROUNDS, PAUSE_S = 40, 0.1
"""Four seconds, which are twice as long as a deadline of 1 s with its margin."""

PAGE_BYTES, MAP_BYTES = 4096, 1 << 21


class SlowLoads(Instant):
    """Each round moves some bytes."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._blobs = settings.model_cache / "models--slow--model" / "blobs"
        self._file = settings.data_dir / "weights"
        self._file.write_bytes(bytes(ROUNDS * MAP_BYTES))

    def generate(self, job: Job, on_step: OnStep) -> list[GeneratedImage]:
        self.work(job.request.prompt)
        return super().generate(job, on_step)

    def before_step(self, step: int, job: Job) -> None:
        if step and job.request.prompt == "read in a step":
            self.work("read")

    def work(self, kind: str) -> None:
        """Load; a prompt or a model of another name takes no time."""
        if kind == "download":
            thread = threading.Thread(target=self._download)
            thread.start()
            thread.join()
        elif kind in ("read", "map"):
            self._read(kind == "map")
        elif kind == "hang":
            ctypes.CDLL(None).sleep(600)

    def _download(self) -> None:
        self._blobs.mkdir(parents=True, exist_ok=True)
        with open(self._blobs / "0.incomplete", "wb", buffering=0) as file:
            for _ in range(ROUNDS):
                file.write(b"x")
                time.sleep(PAUSE_S)

    def _read(self, is_mapped: bool) -> None:
        with open(self._file, "rb", buffering=0) as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            for number in range(ROUNDS):
                if is_mapped:
                    begin = number * MAP_BYTES
                    assert not any(mapped[begin : begin + MAP_BYTES : PAGE_BYTES])
                else:
                    file.read(1)
                time.sleep(PAUSE_S)


def load(settings: WorkerSettings) -> SlowLoads:
    """The factory."""
    pipeline = SlowLoads(settings)
    pipeline.work(settings.model)
    return pipeline
