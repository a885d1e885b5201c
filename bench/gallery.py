"""What a gallery of 10,000 images costs: `python -m bench.gallery --count 10000`.

A store is written as a worker writes it, with PNGs of 512 x 512 pixels. A gateway serves it over
HTTP from this machine, and one client sends one request at a time. `--pages` streams of events are
open while a job of theirs is announced.
"""

from __future__ import annotations

import argparse
import base64
import io
import random
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import requests
from PIL import Image, ImageFilter

from bench import table
from bench.log_records import uuid_of
from gpu_worker.contract.job import Job, Outcome, result_record
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.store.result_log import ResultLog
from tests.support.service import Service, environment, free_port

SUBJECTS = ("lighthouse", "red circle", "forest", "portrait of a woman", "spaceship", "cat")
STYLES = ("at dusk", "in the rain", "watercolor", "film grain", "oil painting", "low poly")
DISTINCT = 16
"""Different PNGs; the others repeat them."""

ROUNDS = 40


def png(number: int) -> str:
    """A soft image of 512 x 512 in base64, about as large as a generated one."""
    noise = random.Random(number).randbytes(64 * 64 * 3)
    image = Image.frombytes("RGB", (64, 64), noise).resize((512, 512), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.filter(ImageFilter.GaussianBlur(2)).save(buffer, "PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode()


def fill(data: Path, count: int) -> None:
    """Write so many results of one image each, a few hundred a day."""
    folder = data / "disk_backups"
    folder.mkdir(parents=True)
    log = ResultLog(folder, "gpu-0")
    log.open()
    texts = [png(number) for number in range(DISTINCT)]
    begin = datetime.now(UTC) - timedelta(days=count / 300)
    choice = random.Random(1)
    for number in range(count):
        prompt = f"a {choice.choice(SUBJECTS)}, {choice.choice(STYLES)}, number {number}"
        job = Job(
            uuid=uuid_of(number),
            sequence=number + 1,
            created_time=(begin + timedelta(days=number / 300)).isoformat(timespec="milliseconds"),
            request=GenerationRequest(prompt=prompt, width=512, height=512, seed=number),
        )
        metadata = {"image_index": 0, "num_images": 1, "model": "demo", "seconds": 1.5}
        log.append(
            result_record(
                job,
                outcome=Outcome.SUCCEEDED,
                errors=[],
                data=texts[number % DISTINCT],
                metadata=metadata,
            )
        )


def timed(act: Callable[[int], requests.Response], rounds: int = ROUNDS) -> list[float]:
    """The milliseconds of each round; every reply is read whole."""
    times = []
    for number in range(rounds):
        begin = time.perf_counter()
        reply = act(number)
        assert reply.status_code == 200, reply.text
        _ = reply.content
        times.append((time.perf_counter() - begin) * 1000)
    return times


def start(data: Path) -> tuple[Service, float]:
    """A gateway over the store, and the seconds until it answers."""
    service = Service(data, free_port(), {})
    begin = time.monotonic()
    log = open(data / "gateway.out", "ab")
    with log:
        service.children["gateway"] = subprocess.Popen(
            [sys.executable, "-m", "gateway"],
            env=environment(data, service.port),
            stdout=log,
            stderr=log,
        )
    service.wait_answering()
    return service, time.monotonic() - begin


def pages(service: Service, count: int) -> tuple[float, float, int]:
    """Milliseconds to open all, median milliseconds until all have an event, and the threads."""
    begin = time.perf_counter()
    sockets = []
    for _ in range(count):
        page = socket.create_connection(("127.0.0.1", service.port))
        page.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        sockets.append(page)
    for page in sockets:
        _until(page, b"retry:")
    opened_ms = (time.perf_counter() - begin) * 1000
    threads = psutil.Process(service.children["gateway"].pid).num_threads()
    times = []
    for number in range(10):
        begin = time.perf_counter()
        body = {"images": [uuid_of(0)], "star": number % 2 == 0}
        assert requests.post(f"{service.url}/image/star", json=body, timeout=30).ok
        for page in sockets:
            _until(page, b"event: change")
        times.append((time.perf_counter() - begin) * 1000)
    for page in sockets:
        page.close()
    return opened_ms, table.quantile(times, 0.5), threads


def _until(page: socket.socket, text: bytes) -> None:
    content = b""
    while text not in content:
        piece = page.recv(65536)
        assert piece, content
        content += piece


def measure(service: Service, count: int) -> list[list[str]]:
    """One row for each kind of request."""
    session = requests.Session()

    def get(path: str, **query: Any) -> requests.Response:
        return session.get(service.url + path, params=query, timeout=60)

    chosen = random.Random(7).sample(range(count), ROUNDS)
    files = [f"/image/files/{uuid_of(number)}.webp" for number in chosen]
    kinds: dict[str, Callable[[int], requests.Response]] = {
        "page of 100, the newest": lambda _: get("/image/results"),
        "page of 100, in the middle": lambda k: get("/image/results", offset=count // 2 + k),
        "page of 100, the last": lambda _: get("/image/results", offset=count - 100),
        "search: one word, a sixth match": lambda _: get("/image/results", q="lighthouse"),
        "search: two words and a prefix": lambda _: get("/image/results", q="cat watercolor num"),
        "search: a word that all have": lambda _: get("/image/results", q="number "),
        "search by seed": lambda k: get("/image/results", seed=k),
        "days": lambda _: get("/image/results/days"),
        "days of a search": lambda _: get("/image/results/days", q="lighthouse"),
        "thumbnail of 256 px, cold": lambda k: get(files[k], px=256),
        "thumbnail of 256 px, warm": lambda k: get(files[k], px=256),
    }
    rows = []
    for name, act in kinds.items():
        times = timed(act)
        rows.append([name, *(table.number(table.quantile(times, q)) for q in (0.5, 0.95))])
    return rows


def main() -> None:
    """Fill a store, start a gateway, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--pages", type=int, default=200)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    with tempfile.TemporaryDirectory(prefix="sde-") as name:
        data = Path(name)
        fill(data, options.count)
        service, built_s = start(data)
        try:
            service.kill("gateway")
            service, again_s = start(data)
            rows = measure(service, options.count)
            opened_ms, event_ms, threads = pages(service, options.pages)
            process = psutil.Process(service.children["gateway"].pid)
            memory_mib = process.memory_info().rss / (1 << 20)
        finally:
            service.stop()
        index_mib = (data / "disk_backups" / "index.sqlite").stat().st_size / (1 << 20)
        thumbnails = [path.stat().st_size for path in (data / "thumbnails").rglob("*.webp")]
    print(table.markdown(["request", "p50 ms", "p95 ms"], rows))
    print(
        f"\nindex: {built_s:.1f} s to build, {index_mib:.1f} MiB; a start with it: {again_s:.1f} s"
    )
    print(f"thumbnail: {table.mean(thumbnails) / 1024:.1f} KiB on average")
    print(
        f"{options.pages} pages: {opened_ms:.0f} ms to open all, {event_ms:.0f} ms until each has "
        f"an event, {threads} threads; the gateway has {memory_mib:.0f} MiB"
    )


if __name__ == "__main__":
    main()
