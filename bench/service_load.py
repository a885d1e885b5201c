"""The load of bench/service.py: one client after another, many at once, and a look at the disk.

Knows version 1's contract, which both servers keep, and starts none of them.
"""

from __future__ import annotations

import http.client
import threading
import time
from pathlib import Path
from typing import Any

import orjson

from gpu_worker.store import segments

LOOK_S = 0.001
"""Pause between two looks for a result: without it the looking itself takes a core."""

FAR_LOOK_S = 0.01
"""The same while hundreds of jobs run: their end is seen a thousandth too late, at no load."""

STAT_S = 0.0001
WAIT_S = 5
CLIENTS = 4
DEADLINE_S = 300.0
ENDED = ("succeeded", "failed", "canceled")


class Client:
    """One connection that is kept; http.client, for requests costs more than the servers do."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)

    def submit(self, steps: int) -> str:
        """POST; the job's uuid."""
        body = orjson.dumps({"prompt": "a red circle", "num_inference_steps": steps, "seed": 1})
        reply = self._ask("POST", "/image/generate", body)
        uuid: str = reply["generation_uuid"]
        return uuid

    def is_there(self, uuid: str) -> bool:
        """Whether the result can be read; it is read. Ends the bench when the job has failed."""
        found = self._ask("GET", f"/image/generate?generation_uuid={uuid}")
        if found and (found[0]["errors"] or not found[0]["data"]):
            raise SystemExit(f"the generation failed: {found[0]['errors']}")
        return bool(found)

    def until_there(self, uuid: str, pause_s: float = LOOK_S) -> None:
        """Look again and again."""
        ends = time.monotonic() + DEADLINE_S
        while not self.is_there(uuid):
            if time.monotonic() > ends:
                raise SystemExit(f"no result within {DEADLINE_S:g} s")
            time.sleep(pause_s)

    def wait(self, uuid: str) -> None:
        """Let the server say when it is there, then read it."""
        while self._ask("GET", f"/image/jobs/{uuid}?wait={WAIT_S}")["state"] not in ENDED:
            pass
        if not self.is_there(uuid):
            raise SystemExit(f"the job {uuid} has ended without a result")

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        headers = {"Content-Type": "application/json"} if body else {}
        self._connection.request(method, path, body, headers)
        reply = self._connection.getresponse()
        text = reply.read()
        if reply.status != 200:
            raise SystemExit(f"{method} {path}: {reply.status} {text.decode(errors='replace')}")
        return orjson.loads(text)


def one_by_one(client: Client, jobs: int, waits: bool = False) -> list[tuple[float, float]]:
    """Seconds of each POST, and from its begin until the result has been read."""
    times = []
    for _ in range(jobs):
        begun = time.perf_counter()
        uuid = client.submit(steps=1)
        posted = time.perf_counter()
        if waits:
            client.wait(uuid)
        else:
            client.until_there(uuid)
        times.append((posted - begun, time.perf_counter() - begun))
    return times


def at_once(port: int, jobs: int) -> tuple[list[float], float]:
    """CLIENTS threads submit all they have: seconds of each POST, and jobs a second until the last
    result is there."""
    share = jobs // CLIENTS
    uuids: list[list[str]] = [[] for _ in range(CLIENTS)]
    posts: list[float] = []

    def submit(own: list[str]) -> None:
        client = Client(port)
        for _ in range(share):
            begun = time.perf_counter()
            own.append(client.submit(steps=1))
            posts.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=submit, args=(own,), daemon=True) for own in uuids]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(posts) != share * CLIENTS:
        raise SystemExit("a client could not submit its jobs")
    client = Client(port)
    for own in uuids:  # jobs run in the order of acceptance: a client's last is its last to end
        client.until_there(own[-1], FAR_LOOK_S)
    seconds = time.perf_counter() - begun
    if not all(client.is_there(uuid) for own in uuids for uuid in own):
        raise SystemExit("a result is missing")
    return posts, share * CLIENTS / seconds


def commit_to_visible(client: Client, results_dir: Path, jobs: int, steps: int) -> list[float]:
    """Seconds from the growth of the worker's segment until GET has the result.

    The file grows with the write, so the time of its fdatasync is in the figure. Nothing can be
    visible before that, so that one thread does for both looks.
    """
    times = []
    for _ in range(jobs):
        newest = segments.newest(results_dir, "gpu-0")
        if newest is None:
            raise SystemExit("the worker has no segment")
        path = results_dir / newest.name
        size = path.stat().st_size
        ends = time.monotonic() + DEADLINE_S
        uuid = client.submit(steps)
        while path.stat().st_size == size:
            if time.monotonic() > ends:
                raise SystemExit(f"no result within {DEADLINE_S:g} s")
            time.sleep(STAT_S)
        begun = time.perf_counter()
        client.until_there(uuid)
        times.append(time.perf_counter() - begun)
    return times
