"""Measures what the service adds to a generation: from POST to readable result, less a direct call.

The direct call is the same pipeline and PNG encoder in this process, turn about with the service:
a noisy machine burdens both alike. Goal: at most 15 ms.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import requests

from gpu_worker.contract.job import Job
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.output import result_records
from gpu_worker.settings import WorkerSettings, load
from tests.support.service import running

GOAL_MS = 15.0
LOOK_S = 0.001
"""Pause between two looks for the result: without it the looking itself takes a core."""

PIPELINES = {
    "nothing": ("tests.pipelines.instant:load", 1),
    "built-in model": ("gpu_worker.pipeline:load", 20),
}


def direct_call(pipeline: Any, steps: int) -> float:
    """Seconds of one generation in this process, PNG included."""
    request = GenerationRequest(prompt="a red circle", num_inference_steps=steps, seed=1)
    job = Job(uuid=str(uuid.uuid4()), sequence=1, created_time="", request=request)
    started = time.perf_counter()
    for picture in pipeline.generate(job, lambda *_: None):
        result_records.encode_png(picture.image)
    return time.perf_counter() - started


def through_the_service(session: requests.Session, url: str, steps: int) -> tuple[float, float]:
    """Seconds from the POST until the result has been read, and how many of them were the
    worker's own run. Waits first until it is available."""
    while not session.get(f"{url}/server/status").json()["is_available"]:
        time.sleep(LOOK_S)
    body = {"prompt": "a red circle", "num_inference_steps": steps, "seed": 1}
    started = time.perf_counter()
    reply = session.post(f"{url}/image/generate", json=body)
    reply.raise_for_status()
    query = {"generation_uuid": reply.json()["generation_uuid"]}
    job = f"{url}/image/jobs/{query['generation_uuid']}"
    # Looking again and again would take the core that generates: the gateway says when.
    while session.get(job, params={"wait": 30}).json()["state"] in ("queued", "running"):
        pass
    found = session.get(f"{url}/image/generate", params=query).json()
    elapsed = time.perf_counter() - started
    if found[0]["errors"]:
        raise SystemExit(f"the generation failed: {found[0]['errors']}")
    return elapsed, found[0]["seconds"]


def measure(name: str, rounds: int) -> float:
    """Print one table row; returns the overhead in ms (median of the differences)."""
    factory, steps = PIPELINES[name]
    folder = Path(tempfile.mkdtemp(prefix="sde-"))
    settings = load(WorkerSettings, {"SDE_DATA_DIR": str(folder)})
    module, function = factory.split(":")
    pipeline = getattr(importlib.import_module(module), function)(settings)
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=factory) as service:
        session = requests.Session()
        for _ in range(3):
            direct_call(pipeline, steps)
            through_the_service(session, service.url, steps)
        rows = [
            (direct_call(pipeline, steps), *through_the_service(session, service.url, steps))
            for _ in range(rounds)
        ]
    shutil.rmtree(folder, ignore_errors=True)
    direct, service_s = (statistics.median(row[k] for row in rows) for k in (0, 1))
    added = sorted((whole - alone) * 1e3 for alone, whole, _ in rows)
    around = statistics.median((whole - own) * 1e3 for _, whole, own in rows)
    overhead = statistics.median(added)
    print(
        f"{name:16s} {direct * 1e3:10.1f} {service_s * 1e3:10.1f} {overhead:10.1f} "
        f"{added[int(0.9 * len(added))]:10.1f} {around:10.1f} {service_s / direct:8.2f}x  "
        f"(goal {GOAL_MS:g} ms)"
    )
    return overhead


def main() -> None:
    """Measure both pipelines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="of the pipeline that does nothing")
    parser.add_argument("--rounds-model", type=int, default=30, help="of the built-in model")
    options = parser.parse_args()
    # As in the worker: threads that spin would burden whoever's turn comes next.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    names = ("direct", "service", "added", "p90", "around it")
    print(f"{'pipeline':16s} {' '.join(f'{name:>10s}' for name in names)}  in ms")
    measure("nothing", options.rounds)
    measure("built-in model", options.rounds_model)


if __name__ == "__main__":
    main()
