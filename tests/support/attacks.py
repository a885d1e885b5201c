"""Attacks a gateway over HTTP and prints its state (`python -m tests.support.attacks [NAME ...]`).

Each attack has a service of its own. Meanwhile GET /server/status is asked on fresh connections.
The tests run the same attacks with smaller numbers.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import resource
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from PIL import Image

from gpu_worker.store import record_line
from tests.support.service import Service, running

STATUS = b"GET /server/status HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
POST = (
    b"POST /image/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\n"
)
PATIENCE_S = 30.0
PICTURE = "00000000-0000-4000-8000-000000000000"
PICTURE_BYTES = 12_600_000


# ---- what is measured -----------------------------------------------------------------------


@dataclass
class Watch:
    """What a client of the status met during an attack, and the memory of the gateway."""

    seconds: list[float] = field(default_factory=list)
    failures: int = 0
    first_bytes: int = 0
    peak_bytes: int = 0
    last_bytes: int = 0

    @property
    def slowest_s(self) -> float:
        """The longest answer of the status; a failure counts as PATIENCE_S."""
        return max([*self.seconds, *[PATIENCE_S] * min(self.failures, 1)], default=PATIENCE_S)


def ask(port: int, request: bytes = STATUS, timeout_s: float = PATIENCE_S) -> bytes:
    """The answer to one request on a fresh connection; empty when it is reset without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as line:
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            line.sendall(request)
        return rest(line)


def rest(line: socket.socket) -> bytes:
    """All that comes until the other side closes or resets the connection."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := line.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def code(reply: bytes) -> str:
    """The status code of a reply."""
    return reply[9:12].decode() if reply.startswith(b"HTTP/1.") else "none"


@contextlib.contextmanager
def watched(service: Service, name: str = "gateway", pause_s: float = 0.05) -> Iterator[Watch]:
    """Ask for the status until the block ends."""
    process = psutil.Process(service.children[name].pid)
    watch, over = Watch(first_bytes=process.memory_info().rss), threading.Event()

    def probe() -> None:
        while not over.wait(pause_s):
            begun = time.monotonic()
            try:
                answered = code(ask(service.port)) == "200"
            except OSError:
                answered = False
            watch.failures += not answered
            if not answered and "-v" in sys.argv:
                print("failure after", time.monotonic() - begun)
            if answered:
                watch.seconds.append(time.monotonic() - begun)

    def weigh() -> None:
        while not over.wait(0.02):
            watch.peak_bytes = max(watch.peak_bytes, process.memory_info().rss)

    threads = [threading.Thread(target=each) for each in (probe, weigh)]
    for thread in threads:
        thread.start()
    try:
        yield watch
    finally:
        over.set()
        for thread in threads:
            thread.join()
        watch.last_bytes = process.memory_info().rss


# ---- connections that do not get to the point ------------------------------------------------


class Crowd:
    """Connections that send a piece now and then, and come back when they are closed."""

    def __init__(
        self,
        port: int,
        count: int,
        first: bytes,
        piece: bytes,
        pause_s: float,
        addresses: int = 1,
    ) -> None:
        self._addresses, self._opened = addresses, 0
        self._port, self._first, self._piece, self._pause_s = port, first, piece, pause_s
        self._over = threading.Event()
        self.reconnections = self._rounds = 0
        self.lines: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, args=(count,))

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        for line in self.lines:
            line.close()

    @property
    def has_come(self) -> bool:
        """Whether each of them has sent its first piece, or tried to."""
        return self._rounds > 0

    def _open(self) -> None:
        line = socket.socket()
        line.setblocking(False)
        if self._addresses > 1:
            line.bind((f"127.0.1.{1 + self._opened % self._addresses}", 0))
        self._opened += 1
        line.connect_ex(("127.0.0.1", self._port))
        self.lines.append(line)

    def _run(self, count: int) -> None:
        for _ in range(count):
            self._open()
        fresh = set(self.lines)
        while not self._over.wait(self._pause_s):
            for line in list(self.lines):
                try:
                    line.send(self._first if line in fresh else self._piece)
                    fresh.discard(line)
                except BlockingIOError:
                    continue
                except OSError:
                    line.close()
                    self.lines.remove(line)
                    fresh.discard(line)
                    self._open()
                    fresh.add(self.lines[-1])
                    self.reconnections += 1
            self._rounds += 1


HEADER = b"GET /server/status HTTP/1.1\r\nX-A: "
BODY = POST + b"Content-Length: 600000\r\n\r\n{"


def silent(service: Service, count: int, seconds: float) -> str:
    """Connections that send nothing."""
    with Crowd(service.port, count, b"", b"", 0.2):
        time.sleep(seconds)
    return "-"


def slow_header(service: Service, count: int, seconds: float, addresses: int = 1) -> str:
    """A byte of the header now and then."""
    with Crowd(service.port, count, HEADER, b"x", 0.5, addresses) as crowd:
        time.sleep(seconds)
    return f"{crowd.reconnections} reconnected"


def slow_body(service: Service, count: int, seconds: float) -> str:
    """A byte of the body now and then."""
    with Crowd(service.port, count, BODY, b" ", 0.5) as crowd:
        time.sleep(seconds)
    return f"{crowd.reconnections} reconnected"


def pipelines(service: Service, count: int, seconds: float) -> str:
    """Many requests at a time, whose replies nobody reads."""
    requests = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 200
    with Crowd(service.port, count, requests, requests, 0.1) as crowd:
        time.sleep(seconds)
    return f"{crowd.reconnections} reconnected"


# ---- bodies ---------------------------------------------------------------------------------


def at_once(service: Service, count: int, request: bytes) -> str:
    """The same request many times at once, and the codes of the answers."""

    def one(_: int) -> str:
        try:
            return code(ask(service.port, request, 120))
        except OSError as error:
            return type(error).__name__

    with ThreadPoolExecutor(count) as pool:
        codes = Counter(pool.map(one, range(count)))
    return ", ".join(f"{number} x {name}" for name, number in sorted(codes.items()))


def json_request(body: bytes) -> bytes:
    """A whole POST /image/generate."""
    return POST + b"Content-Length: %d\r\n\r\n" % len(body) + body


def webp_bomb(width: int = 8000, height: int = 2000) -> str:
    """Base64 of a lossless WebP of one colour: some hundred bytes, millions of pixels."""
    content = io.BytesIO()
    Image.new("RGB", (width, height), (7, 7, 7)).save(content, format="WEBP", lossless=True)
    return base64.b64encode(content.getvalue()).decode()


def webp_bombs(count: int) -> list[str]:
    """So many of them, each with other bytes."""
    return [webp_bomb(8000, 2000 - number) for number in range(count)]


def bombs(service: Service, count: int, images: int = 19) -> str:
    """Requests with more WebPs than any field takes, `images` of them."""
    texts = webp_bombs(images)
    return at_once(service, count, json_request(request_of(texts)))


def request_of(texts: list[str]) -> bytes:
    """A request with these images: image, mask_image, ip_adapter, and the rest controlnets."""
    image, mask, adapter, *rest = texts
    body = {
        "prompt": "x",
        "image": image,
        "mask_image": mask,
        "ip_adapter": {"name": "a", "image": adapter},
        "controlnets": [{"name": "a", "image": text} for text in rest],
    }
    return json.dumps(body).encode()


def noise_png(side: int = 3800) -> bytes:
    """The largest picture that a body of 64 MiB holds, almost."""
    content = io.BytesIO()
    Image.frombytes("RGB", (side, side), os.urandom(side * side * 3)).save(content, format="PNG")
    return content.getvalue()


def uploads(service: Service, count: int, side: int = 3800) -> str:
    """Large pictures at once."""
    text = base64.b64encode(noise_png(side))
    return at_once(service, count, json_request(b'{"prompt": "x", "image": "' + text + b'"}'))


def endless(service: Service, count: int) -> str:
    """Chunked bodies without an end. The client reads after it was refused."""
    chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"

    def one(_: int) -> str:
        with socket.create_connection(("127.0.0.1", service.port), timeout=120) as line:
            with contextlib.suppress(OSError):
                line.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
                for _ in range(200):
                    line.sendall(chunk)
            try:
                return code(line.recv(1 << 16))
            except OSError:
                return "none"

    with ThreadPoolExecutor(count) as pool:
        codes = Counter(pool.map(one, range(count)))
    return ", ".join(f"{number} x {name}" for name, number in sorted(codes.items()))


# ---- readers --------------------------------------------------------------------------------


def store_picture(folder: Path, size: int = PICTURE_BYTES) -> None:
    """A store with one result of this size."""
    results = folder / "disk_backups"
    results.mkdir(parents=True, exist_ok=True)
    record = {
        "uuid": PICTURE,
        "prompt": "x",
        "created_time": "2026-01-01T00:00:00.000+00:00",
        "errors": [],
        "data": base64.b64encode(os.urandom(size)).decode(),
        "state": "succeeded",
        "sequence": 0,
    }
    (results / "gpu-0.00000001.jsonl").write_bytes(record_line.encode(record))


def slow_readers(service: Service, count: int, seconds: float, path: str) -> str:
    """Clients that read a few bytes a second of a large reply."""
    lines = []
    for _ in range(count):
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(PATIENCE_S)
        line.connect(("127.0.0.1", service.port))
        line.setblocking(False)
        line.send(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % path.encode())
        lines.append(line)
    ends, codes = time.monotonic() + seconds, Counter[str]()
    heads: dict[socket.socket, bytes] = {}
    while time.monotonic() < ends:
        time.sleep(0.5)
        for line in lines:
            with contextlib.suppress(OSError):
                heads.setdefault(line, line.recv(512))
    for line in lines:
        codes[code(heads.get(line, b""))] += 1
        line.setblocking(True)
        line.close()
    return ", ".join(f"{number} x {name}" for name, number in sorted(codes.items()))


def slow_image_readers(service: Service, count: int, seconds: float) -> str:
    """Of the image file."""
    return slow_readers(service, count, seconds, f"/image/files/{PICTURE}.png")


def slow_record_readers(service: Service, count: int, seconds: float) -> str:
    """Of its record."""
    path = f"/image/generate?generation_uuid={PICTURE}"
    return slow_readers(service, count, seconds, path)


ATTACKS: dict[str, Callable[[Service], str]] = {
    "silent-500": lambda service: silent(service, 500, 20),
    "silent-2000": lambda service: silent(service, 2000, 20),
    "silent-5000": lambda service: silent(service, 5000, 20),
    "header-500": lambda service: slow_header(service, 500, 20),
    "header-5000": lambda service: slow_header(service, 5000, 20),
    "body-500": lambda service: slow_body(service, 500, 20),
    "body-2000": lambda service: slow_body(service, 2000, 20),
    "header-2000-from-50": lambda service: slow_header(service, 2000, 20, 50),
    "pipelines-200": lambda service: pipelines(service, 200, 20),
    "bombs-12": lambda service: bombs(service, 12),
    "bombs-40": lambda service: bombs(service, 40),
    "seven-bombs-40": lambda service: bombs(service, 40, 7),
    "uploads-24": lambda service: uploads(service, 24),
    "uploads-48": lambda service: uploads(service, 48),
    "endless-60": lambda service: endless(service, 60),
    "image-readers-1000": lambda service: slow_image_readers(service, 1000, 20),
    "image-readers-477": lambda service: slow_image_readers(service, 477, 20),
    "record-readers-477": lambda service: slow_record_readers(service, 477, 20),
}


def affordable(count: int) -> int:
    """So many connections, or what the limit of descriptors allows after it was raised."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return count if hard == resource.RLIM_INFINITY else min(count, hard - 200)


def main() -> int:
    """Run the attacks named on the command line, or all of them."""
    affordable(5000)
    print("| attack | answers | status max, s | failures | MiB first, peak, last | seconds |")
    print("|---|---|---|---|---|---|")
    for name in [each for each in sys.argv[1:] if each != "-v"] or ATTACKS:
        with tempfile.TemporaryDirectory(prefix="sde-") as path:
            folder = Path(path)
            store_picture(folder)
            with running(folder, "gateway", "gpu_worker", SDE_QUEUE_SIZE="3") as service:
                begun = time.monotonic()
                with watched(service) as watch:
                    answers = ATTACKS[name](service)
                took = time.monotonic() - begun
                time.sleep(3)
                process = psutil.Process(service.children["gateway"].pid)
                memory = [watch.first_bytes, watch.peak_bytes, process.memory_info().rss]
                sizes = ", ".join(str(size >> 20) for size in memory)
                print(
                    f"| {name} | {answers} | {watch.slowest_s:.2f} | {watch.failures} | {sizes} "
                    f"| {took:.0f} |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
