"""Measures what the OpenAI and A1111 doors cost: a request through each against the native route.

The pipeline does nothing, and the doors take turns in one run. Then 64 callers wait at once, while
the status is asked. Goals: at most 5 ms more than the native route; the status under 50 ms.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from bench import table
from tests.support.service import Service, eventually, running

GOAL_MS, STATUS_GOAL_MS = 5.0, 50.0
CALLERS = 64
HELD = "tests.pipelines.held:load"
SIZE = {"width": 64, "height": 64}


def native(session: requests.Session, url: str) -> None:
    """Send a job, wait for its end, and read the result with its image."""
    reply = session.post(f"{url}/image/generate", json={"prompt": "a", "queue": True, **SIZE})
    uuid = reply.json()["generation_uuid"]
    while session.get(f"{url}/image/jobs/{uuid}", params={"wait": 30}).json()["state"] in (
        "queued",
        "running",
    ):
        pass
    session.get(f"{url}/image/generate", params={"generation_uuid": uuid}).json()


def openai(session: requests.Session, url: str) -> None:
    """The same through /v1."""
    body = {"prompt": "a", "size": "64x64", "response_format": "b64_json"}
    reply = session.post(f"{url}/v1/images/generations", json=body)
    assert reply.json()["data"][0]["b64_json"], reply.text


def automatic1111(session: requests.Session, url: str) -> None:
    """The same through /sdapi/v1."""
    reply = session.post(f"{url}/sdapi/v1/txt2img", json={"prompt": "a", "steps": 1, **SIZE})
    assert reply.json()["images"], reply.text


DOORS: dict[str, Callable[[requests.Session, str], None]] = {
    "native": native,
    "OpenAI": openai,
    "A1111": automatic1111,
}


def seconds(call: Callable[[], Any]) -> float:
    """The time of one call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def one_by_one(service: Service, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each door, in turn."""
    times: dict[str, list[float]] = {name: [] for name in DOORS}
    with requests.Session() as session:
        for number in range(rounds + 3):
            for name, door in DOORS.items():
                elapsed_ms = 1e3 * seconds(lambda door=door: door(session, service.url))  # type: ignore[misc]
                if number >= 3:
                    times[name].append(elapsed_ms)
    return times


def at_once(service: Service, door: str) -> tuple[list[float], bool]:
    """Milliseconds of the status while CALLERS wait; whether all were answered in their order."""
    order: list[str] = []
    lock = threading.Lock()

    def call(number: int) -> None:
        with requests.Session() as session:
            body = {"prompt": str(number), "seed": number, "steps": 1, **SIZE}
            path = "/sdapi/v1/txt2img"
            if door == "OpenAI":
                own = {"size": "64x64", "num_inference_steps": 1}
                body = {"prompt": str(number), "seed": number, **own}
                path = "/v1/images/generations"
            reply = session.post(service.url + path, json=body, timeout=300)
            reply.raise_for_status()
        with lock:
            order.append(str(number))

    def waiting() -> int:
        jobs = service.get("/image/jobs", params={"limit": 200}).json()
        return sum(job["state"] in ("queued", "running") for job in jobs)

    with ThreadPoolExecutor(CALLERS) as pool:
        calls = []
        for number in range(CALLERS):
            calls.append(pool.submit(call, number))
            eventually(lambda count=number + 1: waiting() == count, "the caller waits")  # type: ignore[misc]
        asked = [1e3 * seconds(lambda: service.get("/server/status")) for _ in range(100)]
        (service.data_dir / "released").touch()
        for each in calls:
            each.result()
    (service.data_dir / "released").unlink()
    # A caller's own thread may wake a moment later than the next one's.
    is_in_order = all(abs(int(name) - place) <= 4 for place, name in enumerate(order))
    return asked, is_in_order and len(order) == CALLERS


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="requests through each door")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="sde-") as folder,
        running(Path(folder), "gateway", "gpu_worker") as service,
    ):
        times = one_by_one(service, options.rounds)
    base = statistics.median(times["native"])
    rows = [
        [
            name,
            table.number(statistics.median(each)),
            table.number(table.quantile(each, 0.9)),
            table.number(statistics.median(each) - base),
        ]
        for name, each in times.items()
    ]
    print(table.markdown(("door", "median ms", "p90 ms", "more than native ms"), rows))
    print(f"goal: at most {GOAL_MS:g} ms more\n")
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="sde-") as folder,
        running(Path(folder), "gateway", "gpu_worker", SDE_PIPELINE=HELD) as service,
    ):
        for door in ("OpenAI", "A1111"):
            asked, is_in_order = at_once(service, door)
            half, most = statistics.median(asked), max(asked)
            answer = "all, in order" if is_in_order else "NOT all in order"
            rows.append([door, table.number(half), table.number(most), answer])
    head = ("64 callers wait", "status, median ms", "status, longest ms", "answered")
    print(table.markdown(head, rows))
    print(f"goal: the status under {STATUS_GOAL_MS:g} ms, all answered, in order")


if __name__ == "__main__":
    main()
