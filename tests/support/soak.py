"""The soak: mixed load through all doors, kills, stops, full disks and bad input, with a tally.

`make soak` runs it for 30 minutes, tests/service/test_soak.py for seconds. Its pauses are random
moments, not waits.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import requests

from tests.support.bad_input import BODIES, PATHS
from tests.support.chaos import Ledger, Report, Submitter, count, settle
from tests.support.service import Service, eventually, running

KEY = "the-soak-runs-with-this-key"
SETTINGS = {
    "SDE_PIPELINE": "tests.pipelines.slow:load",
    "SDE_QUEUE_SIZE": "16",
    "SDE_SEGMENT_MIB": "1",
    "SDE_MAX_ATTEMPTS": "10",
    "SDE_STEP_TIMEOUT_S": "60",
    "SDE_KEYS": f"soak:{KEY}",
    "SDE_KEY": KEY,
}
PROCESSES = ("gateway", "gpu_worker")
ROUTES = (
    "/server/status",
    "/server/workers",
    "/server/storage",
    "/server/keys",
    "/server/session",
    "/healthz",
    "/image/jobs?limit=50",
    "/image/generate?limit=20&data=false",
    "/image/generate?limit=3",
)


@dataclass
class Tally:
    """What clients saw: answers by status, 5xx by route and status, and the slowest status."""

    answers: Counter[int] = field(default_factory=Counter)
    server_errors: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    status_s: list[float] = field(default_factory=list)

    def add(self, what: str, reply: requests.Response) -> None:
        self.answers[reply.status_code] += 1
        if reply.status_code >= 500:
            self.server_errors[f"{what} {reply.status_code}"] += 1


class Client(threading.Thread):
    """Repeats one kind of request until it is stopped. A connection may break at any time."""

    def __init__(self, tally: Tally, seed: int, act: Callable[[random.Random], None]) -> None:
        super().__init__(daemon=True)
        self._tally, self._act = tally, act
        self._random = random.Random(seed)
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._act(self._random)
            except requests.RequestException:
                self._tally.cut += 1
            self._stopping.wait(self._random.random() * 0.2)

    def stop(self) -> None:
        self._stopping.set()
        self.join(120)
        assert not self.is_alive(), "a request is never answered"


def clients(service: Service, ledger: Ledger, tally: Tally, seed: int) -> Iterator[Client]:
    """Readers, a watcher of events, senders of bad input, and one who measures the status."""

    def read(chance: random.Random) -> None:
        path = chance.choice(ROUTES)
        if ledger.accepted and chance.random() < 0.5:
            uuid = chance.choice(list(ledger.accepted.values()))
            kinds = ("jobs/{}", "files/{}.png", "generate?generation_uuid={}", "jobs/{}/preview")
            path = "/image/" + chance.choice(kinds).format(uuid)
        route = path.split("?")[0].removeprefix("/").split("/")[:2]
        tally.add("/".join(route), service.get(path))

    def watch(chance: random.Random) -> None:
        if not ledger.accepted:
            return
        uuid = chance.choice(list(ledger.accepted.values()))
        with service.get(f"/image/jobs/{uuid}/events", stream=True) as reply:
            tally.add("events", reply)
            for _ in zip(range(chance.randrange(1, 20)), reply.iter_content(512), strict=False):
                pass

    def send_nonsense(chance: random.Random) -> None:
        if chance.random() < 0.5:
            tally.add("bad body", service.post(chance.choice(BODIES)))
        else:
            method, path = chance.choice(PATHS)
            tally.add("bad path", service.request(method, path))

    def measure(chance: random.Random) -> None:
        began = time.monotonic()
        tally.add("status", service.get("/server/status"))
        tally.status_s.append(time.monotonic() - began)

    for number, act in enumerate((read, read, read, watch, watch, send_nonsense, measure)):
        yield Client(tally, seed * 100 + number, act)


class Trouble:
    """What befalls a service. Each method does one thing and returns when it has passed."""

    def __init__(self, service: Service, chance: random.Random) -> None:
        self._service, self._chance = service, chance

    def kill(self) -> str:
        return self._end(signal.SIGKILL, "kill -9")

    def terminate(self) -> str:
        return self._end(signal.SIGTERM, "SIGTERM")

    def stop_for_a_while(self) -> str:
        name = self._chance.choice(PROCESSES)
        process = self._service.children[name]
        process.send_signal(signal.SIGSTOP)
        time.sleep(self._chance.uniform(0.5, 4))
        process.send_signal(signal.SIGCONT)
        return f"SIGSTOP {name}"

    def fill_the_disk(self) -> str:
        """No file of either process may grow beyond some bytes (setrlimit(2), RLIMIT_FSIZE)."""
        room = self._chance.choice([0, 100, 4096, 1 << 20])
        limits = {}
        for name in PROCESSES:
            process = psutil.Process(self._service.children[name].pid)
            limits[process] = process.rlimit(psutil.RLIMIT_FSIZE)
            process.rlimit(psutil.RLIMIT_FSIZE, (room, limits[process][1]))
        time.sleep(self._chance.uniform(0.5, 3))
        for process, limit in limits.items():
            process.rlimit(psutil.RLIMIT_FSIZE, limit)
        return "full disk"

    def _end(self, number: int, what: str) -> str:
        name = self._chance.choice(PROCESSES)
        self._service.kill(name, number)
        self._service.start(name)
        return f"{what} {name}"


def befall(service: Service, chance: random.Random, seconds: float) -> Counter[str]:
    """Trouble at random moments for so long."""
    trouble = Trouble(service, chance)
    kinds = (trouble.kill, trouble.terminate, trouble.stop_for_a_while, trouble.fill_the_disk)
    befell: Counter[str] = Counter()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        time.sleep(min(chance.uniform(0.5, 12), max(0.0, ends - time.monotonic())))
        befell[chance.choice(kinds)()] += 1
    return befell


def footprint(service: Service) -> dict[str, str]:
    """Resident MiB and descriptors of each process."""
    processes = {name: psutil.Process(service.children[name].pid) for name in PROCESSES}
    return {
        name: f"{each.memory_info().rss >> 20} MiB, {each.num_fds()} descriptors"
        for name, each in processes.items()
    }


@dataclass(frozen=True)
class Result:
    """The tally of a soak."""

    report: Report
    tally: Tally
    befell: Counter[str]
    first: dict[str, str]
    last: dict[str, str]

    @property
    def unexpected(self) -> dict[str, int]:
        """The 5xx that no trouble explains: 503 and 507 are answers."""
        errors = self.tally.server_errors.items()
        return {what: times for what, times in errors if not what.endswith(("503", "507"))}

    @property
    def sound(self) -> bool:
        """Whether nothing was lost, doubled or stuck, and no answer was a 500."""
        return self.report.sound and not self.unexpected

    def lines(self) -> Iterator[str]:
        """What a person reads."""
        report, slow = self.report, sorted(self.tally.status_s)
        finished = sum(report.outcomes.values()) - report.stuck
        yield f"accepted {report.accepted}, finished {finished}, outcomes {report.outcomes}"
        yield (
            f"lost {report.lost}, doubled {report.doubled}, stuck {report.stuck}, "
            f"failed {report.failed}, returned {report.returned}, "
            f"contradictions {report.contradictions}"
        )
        yield f"befell: {dict(self.befell)}"
        yield f"answers: {dict(sorted(self.tally.answers.items()))}, cut off {self.tally.cut}"
        yield f"5xx by kind: {dict(self.tally.server_errors)}"
        if slow:
            p50, p99 = slow[len(slow) // 2], slow[int(len(slow) * 0.99)]
            yield f"status: p50 {p50:.3f} s, p99 {p99:.3f} s, slowest {slow[-1]:.3f} s"
        for name in PROCESSES:
            yield f"{name}: first {self.first[name]}; last {self.last[name]}"


def soak(folder: Path, seconds: float, seed: int) -> Result:
    """Run everything at once for so long, let it settle, and count."""
    ledger, tally, chance = Ledger(), Tally(), random.Random(seed)
    with running(folder, *PROCESSES, **SETTINGS) as service:
        submitters = [Submitter(service, ledger, f"s{n}", seed + n) for n in range(3)]
        others = list(clients(service, ledger, tally, seed))
        first = footprint(service)
        for thread in (*submitters, *others):
            thread.start()
        befell = befall(service, chance, seconds)
        eventually(lambda: ledger.accepted, "a job is accepted")
        for thread in (*others, *submitters):
            thread.stop()
        service.wait_available()
        settle(service)
        report = count(service, ledger, Counter(befell))
        result = Result(report, tally, befell, first, footprint(service))
        if not result.sound:
            print(service.output()[-20000:], *ledger.contradictions, sep="\n")
    return result


def main() -> int:
    """The long run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.minutes:g} minutes", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="sde-"))
    result = soak(folder, options.minutes * 60, options.seed)
    print(*result.lines(), sep="\n")
    print("sound" if result.sound else f"NOT SOUND; the store is in {folder}")
    if result.sound:
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
    return 0 if result.sound else 1


if __name__ == "__main__":
    sys.exit(main())
