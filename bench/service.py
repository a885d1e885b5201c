"""Measures the whole service beside one built as version 1 describes its own (bench/v1_server.py).

Both run a pipeline that does nothing, turn about, in fresh folders each round. Goal: a result can
be read at most 10 ms (median) after the worker has written it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from bench.service_load import CLIENTS, Client, at_once, commit_to_visible, one_by_one
from bench.table import goal, markdown, number, quantile, ratio
from tests.support.service import ROOT, Service, eventually, free_port, running

OURS, SEED, SYNCED = "ours", "seed's way", "seed's way, synced"
QUEUE_SIZE = 10_000
WARM_UP = 5
TURN = 10
"""Jobs of one server before it is another's turn."""

SLOW_STEPS = 10
"""Of tests/pipelines/slow.py, 50 ms each: a job long enough that the gateway looks less often."""


@dataclass
class Figures:
    """Seconds, one for each job; `rates` are jobs a second, one for each round."""

    posts: list[float] = field(default_factory=list)
    polled: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    posts_at_once: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    visible: list[float] = field(default_factory=list)
    visible_slow: list[float] = field(default_factory=list)


@contextmanager
def fresh_folder() -> Iterator[Path]:
    """A short name: a unix socket's path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="sde-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def ours(pipeline: str) -> Iterator[Service]:
    """Gateway and worker."""
    settings = {"SDE_PIPELINE": f"tests.pipelines.{pipeline}:load"}
    with (
        fresh_folder() as folder,
        running(
            folder, "gateway", "gpu_worker", SDE_QUEUE_SIZE=str(QUEUE_SIZE), **settings
        ) as service,
    ):
        yield service


@contextmanager
def seeds(synced: bool) -> Iterator[int]:
    """The port of version 1."""
    port = free_port()
    with fresh_folder() as folder:
        command = [sys.executable, "-m", "bench.v1_server", "--port", str(port)]
        command += ["--folder", str(folder), "--queue-size", str(QUEUE_SIZE)]
        child = subprocess.Popen(command + ["--synced"] * synced, cwd=ROOT)

        def answers() -> bool:
            if child.poll() is not None:
                raise SystemExit("bench.v1_server has ended; it says why above")
            try:
                return requests.get(f"http://127.0.0.1:{port}/server/status", timeout=5).ok
            except requests.ConnectionError:
                return False

        try:
            eventually(answers, "version 1 answers")
            yield port
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait()


def one_round(figures: dict[str, Figures], turn: int, options: argparse.Namespace) -> None:
    """All servers beside each other, each in its turn."""
    with ExitStack() as stack:
        service = stack.enter_context(ours("instant"))
        ports = {
            OURS: service.port,
            SEED: stack.enter_context(seeds(synced=False)),
            SYNCED: stack.enter_context(seeds(synced=True)),
        }
        clients = {name: Client(port) for name, port in ports.items()}
        for client in clients.values():
            one_by_one(client, WARM_UP)
        for part in range(options.sequential // TURN):
            for name in _in_turn(list(ports), turn + part):
                found = one_by_one(clients[name], TURN)
                figures[name].posts += [post for post, _ in found]
                figures[name].polled += [whole for _, whole in found]
            found = one_by_one(clients[OURS], TURN, waits=True)
            figures[OURS].waited += [whole for _, whole in found]
        results_dir = service.data_dir / "disk_backups"
        figures[OURS].visible += commit_to_visible(
            clients[OURS], results_dir, options.sequential, steps=1
        )
        for name in _in_turn(list(ports), turn):
            posts, rate = at_once(ports[name], options.jobs)
            figures[name].posts_at_once += posts
            figures[name].rates.append(rate)


def slow_jobs(figures: Figures, jobs: int) -> None:
    """Half a second each, as a quick GPU's."""
    with ours("slow") as service:
        results_dir = service.data_dir / "disk_backups"
        client = Client(service.port)
        figures.visible_slow += commit_to_visible(client, results_dir, jobs, SLOW_STEPS)


def table(figures: dict[str, Figures]) -> str:
    """Markdown; the ratio is against version 1."""
    timed = {
        "POST, one client": "posts",
        "POST to result, looking each ms": "polled",
        "POST to result, by ?wait=": "waited",
        f"POST, {CLIENTS} clients at once": "posts_at_once",
        "commit to visible": "visible",
        "commit to visible, jobs of 0.5 s": "visible_slow",
    }
    rows = []
    for title, key in timed.items():
        for share, said in ((0.5, "p50"), (0.99, "p99")):
            found = [quantile(getattr(each, key), share) * 1e3 for each in figures.values()]
            rows.append([f"{title}, {said}, ms", *map(number, found), ratio(found[0], found[1])])
    found = [quantile(each.rates, 0.5) for each in figures.values()]
    rows.append(["jobs a second", *map(number, found), ratio(found[0], found[1])])
    return markdown(["", *figures, f"{OURS} / {SEED}"], rows)


def _in_turn(names: list[str], turn: int) -> list[str]:
    first = turn % len(names)
    return names[first:] + names[:first]


def main() -> None:
    """Measure round by round, print the table and the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sequential", type=int, default=60, help="jobs of one client, a round")
    parser.add_argument("--jobs", type=int, default=400, help=f"of {CLIENTS} clients, a round")
    parser.add_argument("--slow-jobs", type=int, default=40, help="of half a second, once")
    options = parser.parse_args()
    if any(importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn")):
        raise SystemExit(
            "bench.service needs FastAPI and uvicorn: "
            "python -m pip install -c constraints.txt -e '.[bench]'"
        )
    figures = {name: Figures() for name in (OURS, SEED, SYNCED)}
    for turn in range(options.rounds):
        one_round(figures, turn, options)
        print(f"... round {turn + 1} of {options.rounds}", flush=True)
    slow_jobs(figures[OURS], options.slow_jobs)
    print(f"\n{table(figures)}\n\n{os.cpu_count()} cores, {options.rounds} rounds.\n")
    visible = [figures[OURS].visible, figures[OURS].visible_slow]
    titles = ("commit to visible, median", "commit to visible, median, jobs of 0.5 s")
    rows = [
        goal(title, quantile(seconds, 0.5) * 1e3, 10, " ms")
        for title, seconds in zip(titles, visible, strict=True)
    ]
    print(markdown(["goal", "wanted", "found", ""], rows))


if __name__ == "__main__":
    main()
