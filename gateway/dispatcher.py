"""One thread a worker: submit, watch, collect. It alone speaks to it; it decides no order."""

from __future__ import annotations

import logging
import threading
import time

import orjson

from gateway.broker import Broker
from gateway.worker_link import WorkerLink, WorkerUnavailable
from gpu_worker.protocol import Reply, WorkerStatus
from gpu_worker.results import DamagedLine, ResultIndex

log = logging.getLogger(__name__)

IDLE_POLL_S = 0.25
CLOSEST_POLL_S = 0.002
WIDEST_POLL_S = 0.1
NEARNESS = 0.1
"""Look again after a tenth of the time left or passed: the error stays within 10 %."""


class Dispatcher:
    """Serves one worker until it is stopped."""

    def __init__(self, worker: str, link: WorkerLink, broker: Broker, index: ResultIndex) -> None:
        self._worker = worker
        self._link = link
        self._broker = broker
        self._index = index
        self._stopping = threading.Event()
        self._seen: tuple[int, str | None] = (0, None)
        self._seen_at = time.monotonic()

    def start(self) -> None:
        """Run in a daemon thread of its own, which owns the socket."""
        threading.Thread(target=self.run, name=f"dispatch-{self._worker}", daemon=True).start()

    def stop(self) -> None:
        """Ask the thread to end; it does within a poll."""
        self._stopping.set()

    def run(self) -> None:
        """Ask, collect, submit, wait; a worker that is away is asked again until it is back."""
        while not self._stopping.is_set():
            status = self._round()
            self._broker.wait_for_work(self._worker, self._pause_s(status))
        self._link.close()

    def _round(self) -> WorkerStatus | None:
        try:
            status = self._collect(self._link.status())
            job = self._broker.running(self._worker) or self._broker.take(self._worker)
            # A job that is ours while the worker idles was never begun there: its process died
            # between the reply and the first step, or refused it. Offer it (again).
            if job is not None and status.state == "idle":
                status = self._collect(self._link.submit(job))
            return status
        except WorkerUnavailable as error:
            if self._broker.workers()[self._worker] is not None:
                log.warning("worker %s is unreachable: %s", self._worker, error)
            self._broker.observe(self._worker, None)
            return None

    def _collect(self, reply: Reply) -> WorkerStatus:
        """Read what is newly committed before anybody is told that the worker is idle."""
        status = reply.status
        for uuid in self._index.refresh(status.log, status.committed):
            self._broker.end(uuid, self._errors_of(uuid))
        if status.unwritten is not None:
            uuid, reason = status.unwritten
            self._broker.end(uuid, [reason])
        if (status.step, status.uuid) != self._seen:
            self._seen, self._seen_at = (status.step, status.uuid), time.monotonic()
        self._broker.observe(self._worker, status)
        return status

    def _errors_of(self, uuid: str) -> list[str]:
        try:
            record = orjson.loads(self._index.entries(uuid)[0].read())
            return list(record.get("errors", []))
        except (OSError, DamagedLine, orjson.JSONDecodeError) as error:
            log.error("the result of %s is unreadable: %s", uuid, error)
            return [f"the result is unreadable: {error}"]

    def _pause_s(self, status: WorkerStatus | None) -> float:
        if status is None or status.state != "busy":
            return IDLE_POLL_S
        passed = time.monotonic() - self._seen_at
        nearest = passed
        if status.step_s and status.step < status.steps:
            nearest = max(0.0, (status.steps - status.step) * status.step_s - passed)
        return min(WIDEST_POLL_S, max(CLOSEST_POLL_S, nearest * NEARNESS))
