"""The kill harness: jobs go in while everything is killed at random; what is lost, doubled, stuck?

`make chaos` runs it long, tests/service/test_chaos.py briefly. Its pauses are random moments, not
waits.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.support.service import Service, eventually, running

SETTINGS = {
    "SDE_PIPELINE": "tests.pipelines.slow:load",
    "SDE_QUEUE_SIZE": "8",
    "SDE_SEGMENT_MIB": "1",
    # Quarantine has a test of its own; here every job shall end with a picture.
    "SDE_MAX_ATTEMPTS": "10",
}
SETTLE_S = 120.0
LONGEST_PAUSE_S = 0.8


@dataclass
class Ledger:
    """What the clients were told. One key, one uuid, whatever was in between.

    `deleted` may be gone: a deletion was sent. `gone` must be: it was answered 204.
    """

    accepted: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    contradictions: list[str] = field(default_factory=list)

    def take(self, key: str, uuid: str) -> None:
        """A reply to a POST."""
        before = self.accepted.setdefault(key, uuid)
        if before != uuid:
            self.contradictions.append(f"{key} was {before} and is {uuid}")


@dataclass(frozen=True)
class Report:
    """The count; all but the first four must be zero.

    `lost` has no outcome or lacks pictures, `doubled` is a line twice, `failed` has no picture
    though nothing was wrong with the job, `returned` was deleted and is there again.
    """

    accepted: int
    deleted: int
    kills: dict[str, int]
    outcomes: dict[str, int]
    lost: int
    doubled: int
    stuck: int
    failed: int
    returned: int
    unknown: int
    contradictions: int

    @property
    def sound(self) -> bool:
        """Whether the promise was kept."""
        return not any((self.lost, self.doubled, self.stuck, self.failed)) and not any(
            (self.returned, self.unknown, self.contradictions)
        )


class Submitter(threading.Thread):
    """A client that does not give up: each job under one key, sent until it is answered."""

    def __init__(self, service: Service, ledger: Ledger, name: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._service, self._ledger, self._prefix = service, ledger, name
        self._random = random.Random(seed)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Begin no further job. The last one is sent until it is answered: it may be accepted."""
        self._stopping.set()
        self.join(SETTLE_S)
        assert not self.is_alive(), "the service answers nobody"

    def run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            self._submit(f"{self._prefix}-{number}")
            self._stopping.wait(self._random.random() * 0.3)

    def _submit(self, key: str) -> None:
        body = {
            "prompt": key,
            "num_inference_steps": self._random.randrange(1, 4),
            "num_images_per_prompt": self._random.randrange(1, 4),
        }
        while True:
            with contextlib.suppress(requests.RequestException):
                reply = self._service.post(body, headers={"Idempotency-Key": key})
                if reply.status_code == 200:
                    uuid = reply.json()["generation_uuid"]
                    self._ledger.take(key, uuid)
                    self._also(uuid)
                    return
                if reply.status_code not in (429, 503, 507):
                    self._ledger.contradictions.append(f"{key}: {reply.status_code} {reply.text}")
                    return
            time.sleep(0.02)

    def _also(self, uuid: str) -> None:
        chance = self._random.random()
        with contextlib.suppress(requests.RequestException):
            if chance < 0.1:
                self._service.request("DELETE", f"/image/jobs/{uuid}")
            elif chance < 0.3 and self._ledger.accepted:
                old = self._random.choice(list(self._ledger.accepted.values()))
                # Noted first: a reply that is lost may have been obeyed.
                self._ledger.deleted.add(old)
                path = f"/image/generate?generation_uuid={old}"
                reply = self._service.request("DELETE", path)
                if reply.status_code == 204:
                    self._ledger.gone.add(old)
                elif reply.status_code not in (409, 410, 507):
                    said = f"deleting {old}: {reply.status_code} {reply.text}"
                    self._ledger.contradictions.append(said)


def kill_by_hand(service: Service, kills: int, chance: random.Random) -> Counter[str]:
    """Gateway and worker, started and killed by us: there is no pause between death and birth."""
    killed: Counter[str] = Counter()
    for _ in range(kills):
        time.sleep(chance.random() * LONGEST_PAUSE_S)
        victim = chance.choice(["gateway", "gpu_worker"])
        service.kill(victim, signal.SIGKILL)
        service.start(victim)
        killed[victim] += 1
    return killed


def kill_under_supervision(service: Service, kills: int, chance: random.Random) -> Counter[str]:
    """Supervisord itself and what it watches."""
    killed: Counter[str] = Counter()
    for _ in range(kills):
        time.sleep(chance.random() * 4 * LONGEST_PAUSE_S)
        victim = chance.choice(["supervisor", "gateway", "gpu_worker"])
        if victim == "supervisor":
            service.kill("supervisor", signal.SIGKILL)
            service.start("supervisor")
        else:
            for process in service.processes(victim)[:1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        killed[victim] += 1
    return killed


def settle(service: Service) -> None:
    """Wait until every accepted job has its outcome; what has not by then is stuck."""

    def all_ended() -> bool:
        with contextlib.suppress(requests.RequestException):
            live = service.get("/image/jobs?limit=1000").json()
            return all(job["state"] not in ("queued", "running") for job in live)
        return False

    with contextlib.suppress(AssertionError):
        eventually(all_ended, "every job has ended", SETTLE_S)


def count(service: Service, ledger: Ledger, kills: Counter[str]) -> Report:
    """Compare what the clients were told with what the service and its files say."""
    listed = service.get("/image/generate?data=false").json()
    shown = Counter(map(_result, listed))
    told = set(ledger.accepted.values())
    states = {}
    for uuid in told:
        reply = service.get(f"/image/jobs/{uuid}")
        states[uuid] = reply.json()["state"] if reply.ok else str(reply.status_code)
    may_be_gone = ledger.deleted
    lines = Counter(map(_result, service.lines()))
    there = Counter(uuid for uuid, _ in shown)
    wanted = {record["uuid"]: record.get("num_images", 1) for record in listed}
    return Report(
        accepted=len(told),
        deleted=len(ledger.gone),
        kills=dict(kills),
        outcomes=dict(Counter(states.values())),
        lost=sum(
            1
            for uuid in told
            if states[uuid] == "404"
            or (there[uuid] < wanted.get(uuid, 1) and uuid not in may_be_gone)
        ),
        doubled=sum(1 for times in (shown | lines).values() if times > 1),
        stuck=sum(1 for uuid in told if states[uuid] in ("queued", "running")),
        failed=sum(1 for uuid in told if states[uuid] == "failed"),
        returned=sum(1 for uuid in ledger.gone if there[uuid] or states[uuid] != "410"),
        unknown=len(set(there) - told),
        contradictions=len(ledger.contradictions),
    )


def _result(record: dict[str, Any]) -> tuple[str, int]:
    """A job has one record a picture."""
    return record["uuid"], record.get("image_index", 0)


def chaos(folder: Path, kills: int, supervised: int, seed: int) -> Report:
    """Both parts over one store, one after the other."""
    ledger, killed, chance = Ledger(), Counter[str](), random.Random(seed)
    parts = (
        (kill_by_hand, kills, ("gateway", "gpu_worker")),
        (kill_under_supervision, supervised, ("supervisor",)),
    )
    for part, (kill, number, names) in enumerate(parts):
        with running(folder, *names, **SETTINGS) as service:
            submitters = [
                Submitter(service, ledger, f"{part}.{client}", seed + client) for client in range(3)
            ]
            for submitter in submitters:
                submitter.start()
            killed += kill(service, number, chance)
            # On a busy machine hardly a client got through between two deaths.
            eventually(lambda: ledger.gone, "a result has been deleted")
            for submitter in submitters:
                submitter.stop()
            service.wait_available()
            settle(service)
            report = count(service, ledger, killed)
            if not report.sound:
                print(service.output()[-20000:], *ledger.contradictions, sep="\n")
                break
    return report


def main() -> int:
    """The long run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="of gateway and worker")
    parser.add_argument("--supervised", type=int, default=60, help="supervisord among them")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.kills} + {options.supervised} kills", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="sde-"))
    report = chaos(folder, options.kills, options.supervised, options.seed)
    print(report)
    if report.sound:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if report.sound else 1


if __name__ == "__main__":
    sys.exit(main())
