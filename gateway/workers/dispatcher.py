"""One thread a worker: submit, watch, collect. It alone speaks to it; it decides no order."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time

import orjson

from gateway.admission.capabilities import WorkerCapabilities
from gateway.jobs.broker import Broker
from gateway.jobs.job_entry import JobEntry
from gateway.jobs.journal import Journal
from gateway.jobs.removal import Removal
from gateway.store.index_db import Entry
from gateway.store.result_index import ResultIndex
from gateway.workers.model_commands import CommandQueue
from gateway.workers.worker_link import WorkerLink, WorkerRefused, WorkerUnavailable
from gpu_worker.contract.job import Outcome
from gpu_worker.contract.protocol import Reply, WorkerStatus
from gpu_worker.store.durable import DamagedLine

log = logging.getLogger(__name__)

IDLE_POLL_S = 0.25
CLOSEST_POLL_S = 0.002
WIDEST_POLL_S = 0.1
NEARNESS = 0.1
"""Look again after a tenth of the time left or passed: the error stays within 10 %."""

MAX_OFFERS = 5
"""A job is taken more than once when its worker dies before it has noted it: a matter of
milliseconds. One that is taken so often without an outcome has something that lets none be."""


class Dispatcher:
    """Serves one worker until it is stopped."""

    def __init__(
        self,
        worker: str,
        link: WorkerLink,
        broker: Broker,
        journal: Journal,
        index: ResultIndex,
        removal: Removal,
        capabilities: WorkerCapabilities,
        wishes: CommandQueue,
    ) -> None:
        self._worker = worker
        self._link = link
        self._broker = broker
        self._journal = journal
        self._index = index
        self._removal = removal
        self._capabilities = capabilities
        self._wishes = wishes
        self._seal: str | None = None
        self._taken: tuple[str, int] = ("", 0)
        self._stopping = threading.Event()
        self._met = threading.Event()
        self._seen: tuple[int, str | None] = (0, None)
        self._seen_at = time.monotonic()

    def start(self) -> None:
        """Run in a daemon thread of its own, which owns the socket."""
        threading.Thread(target=self.run, name=f"dispatch-{self._worker}", daemon=True).start()

    def stop(self) -> None:
        """Ask the thread to end; it does within a poll."""
        self._stopping.set()

    def meet(self, timeout_s: float) -> bool:
        """Wait until the worker has been asked once, whether it answered or not."""
        return self._met.wait(timeout_s)

    def seal(self, segment: str) -> None:
        """Have the worker begin a new segment after this one, when it answers."""
        self._seal = segment

    def run(self) -> None:
        """Ask, collect, submit, wait; a worker that is away is asked again until it is back."""
        while not self._stopping.is_set():
            status = self._round()
            self._met.set()
            if status is None:
                self._stopping.wait(IDLE_POLL_S)
            else:
                self._broker.wait_for_work(self._worker, self._pause_s(status))
        self._link.close()

    def _round(self) -> WorkerStatus | None:
        try:
            return self._speak()
        except WorkerUnavailable as error:
            if self._broker.workers()[self._worker] is not None:
                log.warning("worker %s is unreachable: %s", self._worker, error)
            self._broker.observe(self._worker, None)
            self._wishes.refuse()
        except (OSError, sqlite3.Error) as error:
            # The log or its index: nothing is lost, and it is tried again.
            log.error("worker %s waits for the disk: %s", self._worker, error)
        except Exception:
            log.exception("a round with worker %s failed; the next one follows", self._worker)
        return None

    def _speak(self) -> WorkerStatus:
        reply = self._link.status()
        if self._capabilities.is_outdated(self._worker, reply.status):
            reply = self._learn()
        status = self._collect(reply)
        granted = self._wishes.grant(self._send_wish)
        if granted is not None:
            status = self._collect(granted)
        if status.uuid is not None and self._is_unwanted(status):
            status = self._collect(self._link.cancel(status.uuid))
        if self._seal is not None:
            segment, self._seal = self._seal, None
            status = self._collect(self._link.seal(segment))
        if status.state == "idle":
            ticket = self._next()
            if ticket is not None:
                reply = self._link.submit(ticket.job)
                if reply.accepted:
                    self._taken = ticket.job.uuid, self._times_taken(ticket) + 1
                status = self._collect(reply)
        return status

    def _times_taken(self, ticket: JobEntry) -> int:
        return self._taken[1] if self._taken[0] == ticket.job.uuid else 0

    def _learn(self) -> Reply:
        """Have it describe itself before anybody knows that it is there."""
        try:
            reply = self._link.describe()
        except WorkerRefused as error:
            log.error("worker %s cannot say what it can do: %s", self._worker, error)
            reply = self._link.status()
        self._capabilities.update(self._worker, reply.status, reply.description)
        return reply

    def _send_wish(self, model: str | None) -> Reply:
        return self._link.unload() if model is None else self._link.load(model)

    def _is_unwanted(self, status: WorkerStatus) -> bool:
        """Canceled, or a job that has its outcome: a note of a worker that was away for long."""
        if status.state != "busy" or status.uuid is None:
            return False
        if self._broker.unwanted(status):
            return True
        own = self._broker.running(self._worker)
        is_own = own is not None and own.job.uuid == status.uuid
        return not is_own and self._index.find(status.uuid) is not None

    def _next(self) -> JobEntry | None:
        """What an idle worker should do.

        A job that is its own while it idles was never begun there: its process died between the
        reply and the first step, or refused it. It is offered again, MAX_OFFERS times at most.
        """
        while ticket := self._broker.running(self._worker) or self._broker.take(self._worker):
            ended = self._index.find(ticket.job.uuid)
            if ended is not None:
                self._end(ended)
            elif self._broker.running(self._worker) is not ticket:
                continue  # its result has been deleted between the two looks
            elif ticket.cancel:
                self._removal.end_unrun(ticket)
            elif (times := self._times_taken(ticket)) >= MAX_OFFERS:
                log.error("worker %s makes no outcome of %s", self._worker, ticket.job.uuid)
                sentence = (
                    f"its worker has taken this job {times} times and made no outcome of it; "
                    "it is not run again (the logs of worker and gateway say more)"
                )
                self._removal.end_unrun(ticket, Outcome.FAILED, sentence)
            else:
                break
        if ticket is None or ticket.dispatched:
            return ticket
        try:
            self._journal.dispatch(ticket.job.uuid, self._worker)
        except OSError:
            self._broker.requeue(ticket, cancel=ticket.cancel)
            raise
        ticket.dispatched = True
        return ticket

    def _collect(self, reply: Reply) -> WorkerStatus:
        """Read what is newly committed before anybody is told that the worker is idle."""
        status = reply.status
        # What is committed holds all results of a job: it ends once, whatever their number.
        ended = {entry.uuid: entry for entry in self._index.refresh(status.log, status.committed)}
        for entry in ended.values():
            self._end(entry)
        if (status.step, status.uuid) != self._seen:
            self._seen, self._seen_at = (status.step, status.uuid), time.monotonic()
        self._broker.observe(self._worker, status)
        return status

    def _end(self, entry: Entry) -> None:
        self._journal.end(entry.uuid)
        try:
            line = self._index.read_without_data(entry.uuid)
        except (OSError, DamagedLine, sqlite3.Error) as error:
            log.error("the result of %s is unreadable: %s", entry.uuid, error)
            record = {"errors": [f"the result is unreadable: {error}"]}
        else:
            if line is None:
                return  # deleted since it was read, and forgotten by whoever did it
            record = orjson.loads(line)
        said = {"uuid": entry.uuid, "state": entry.state, "created_time": ""}
        self._broker.end(entry.uuid, said | record)

    def _pause_s(self, status: WorkerStatus) -> float:
        if status.state != "busy":
            return IDLE_POLL_S
        passed = time.monotonic() - self._seen_at
        nearest = passed
        if status.step_s and status.step < status.steps:
            nearest = max(0.0, (status.steps - status.step) * status.step_s - passed)
        return min(WIDEST_POLL_S, max(CLOSEST_POLL_S, nearest * NEARNESS))
