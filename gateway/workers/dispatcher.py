"""Serves one worker in a thread: submits jobs, watches them and collects results.

No other thread speaks to the worker. The broker decides the order of jobs.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable

import orjson

from gateway.admission.capabilities import WorkerCapabilities
from gateway.jobs.broker import Broker
from gateway.jobs.cancellation import JobCancellation
from gateway.jobs.job_entry import JobEntry
from gateway.jobs.journal import Journal
from gateway.store.index_db import Entry
from gateway.store.result_index import ResultIndex
from gateway.workers.model_commands import CommandQueue
from gateway.workers.worker_link import (
    WorkerLink,
    WorkerMismatch,
    WorkerRefused,
    WorkerUnavailable,
)
from gpu_worker.contract.job import Outcome
from gpu_worker.contract.protocol import ModelCommand, Reply, WorkerState, WorkerStatus
from gpu_worker.store import process
from gpu_worker.store.durable import DamagedLine
from gpu_worker.store.exit_report import NO_EXIT, ExitReport

log = logging.getLogger(__name__)

IDLE_POLL_S = 0.25
CLOSEST_POLL_S = 0.002
WIDEST_POLL_S = 0.1
NEARNESS = 0.1
"""The next look comes after a tenth of the time that is left, so the delay stays within 10 %."""

MAX_OFFERS = 5
"""A job is offered again when its worker dies in the milliseconds before it writes its note. A job
that is accepted so often without an outcome can have none."""


class Dispatcher:
    """Serves one worker until the process ends."""

    def __init__(
        self,
        worker: str,
        link: WorkerLink,
        broker: Broker,
        journal: Journal,
        index: ResultIndex,
        cancellation: JobCancellation,
        capabilities: WorkerCapabilities,
        commands: CommandQueue,
        exit_reports: Callable[[], ExitReport] = lambda: NO_EXIT,
    ) -> None:
        self._worker = worker
        self._link = link
        self._broker = broker
        self._journal = journal
        self._index = index
        self._cancellation = cancellation
        self._capabilities = capabilities
        self._commands = commands
        self._exit_reports = exit_reports
        self._exit_read_at = -math.inf
        self._rotate_after: str | None = None
        self._offers: Counter[str] = Counter()
        self._first_round_over = threading.Event()
        self._mismatch: str | None = None
        self._progress: object = None
        self._progress_at = time.monotonic()

    def start(self) -> None:
        """Run in a daemon thread, which owns the socket. The process ends with it."""
        process.start_thread(f"dispatch-{self._worker}", self.run)

    def wait_for_first_round(self, timeout_s: float) -> bool:
        """Wait for the first round with the worker; return whether it is over."""
        return self._first_round_over.wait(timeout_s)

    def rotate(self, segment: str) -> None:
        """Have the worker begin a new segment after this one at its next answer."""
        self._rotate_after = segment

    def run(self) -> None:
        """Ask, collect, submit and wait, forever. A worker that does not answer is asked again."""
        while True:
            self._read_exit_report()
            status = self._round()
            self._first_round_over.set()
            if status is None:
                time.sleep(IDLE_POLL_S)
            else:
                self._broker.wait_for_work(self._worker, self._pause_s(status))

    def _read_exit_report(self) -> None:
        """Learn how the worker's process ended last, at most once in IDLE_POLL_S."""
        now = time.monotonic()
        if now - self._exit_read_at >= IDLE_POLL_S:
            self._exit_read_at = now
            self._broker.observe_exit(self._worker, self._exit_reports())

    def _round(self) -> WorkerStatus | None:
        try:
            self._cancellation.index_outcomes()
            return self._speak()
        except WorkerUnavailable as error:
            mismatch = str(error) if isinstance(error, WorkerMismatch) else None
            if self._broker.workers()[self._worker] is not None or mismatch != self._mismatch:
                log.warning("the worker %s does not answer: %s", self._worker, error)
            self._mismatch = mismatch
            self._broker.observe(self._worker, None, mismatch)
            self._commands.reject_all()
        except (OSError, sqlite3.Error) as error:
            # The log or its index failed. Nothing is lost, and the next round tries again.
            log.error(
                "a round with the worker %s failed because of the disk and will be retried: %s",
                self._worker,
                error,
            )
        except Exception:
            log.exception("a round with the worker %s failed; the next one follows", self._worker)
        return None

    def _speak(self) -> WorkerStatus:
        reply = self._link.status()
        if self._capabilities.is_outdated(self._worker, reply.status):
            reply = self._learn()
        status = self._collect(reply)
        command_reply = self._commands.run_next(self._send_command)
        if command_reply is not None:
            status = self._collect(command_reply)
        for slot in status.slots:
            if self._is_unwanted(slot.uuid):
                status = self._collect(self._link.cancel(slot.uuid))
        if self._rotate_after is not None:
            segment, self._rotate_after = self._rotate_after, None
            status = self._collect(self._link.rotate(segment))
        while status.free_slots:
            entry = self._next(status)
            if entry is None:
                break
            reply = self._link.submit(entry.job)
            self._offers[entry.job.uuid] += reply.accepted
            status = self._collect(reply)
            if not reply.accepted:
                break
        return status

    def _learn(self) -> Reply:
        """Fetch its description before the broker learns that it answers."""
        try:
            reply = self._link.describe()
        except WorkerRefused as error:
            log.error("the worker %s cannot describe itself: %s", self._worker, error)
            reply = self._link.status()
        self._capabilities.update(self._worker, reply.status, reply.description)
        return reply

    def _send_command(self, command: ModelCommand) -> Reply:
        return self._link.unload() if command.unload else self._link.load(command.model)

    def _is_unwanted(self, uuid: str) -> bool:
        """Return whether a held job is canceled, or has its outcome already."""
        if self._broker.wants_end(uuid):
            return True
        is_own = any(entry.job.uuid == uuid for entry in self._broker.running(self._worker))
        return not is_own and self._index.has_outcome(uuid)

    def _next(self, status: WorkerStatus) -> JobEntry | None:
        """Return the next job for a free slot; the journal then has its worker.

        A job that is assigned to the worker but not held was never begun: the process died after
        its reply, or refused it. It is offered again, MAX_OFFERS times at most.
        """
        while entry := self._not_held(status) or self._broker.take(self._worker):
            if not self._end_instead(entry):
                break
        if entry is None or entry.dispatched:
            return entry
        try:
            self._journal.dispatch(entry.job.uuid, self._worker)
        except OSError:
            self._broker.requeue(entry, cancel=entry.cancel)
            raise
        entry.dispatched = True
        return entry

    def _not_held(self, status: WorkerStatus) -> JobEntry | None:
        own = self._broker.running(self._worker)
        return next((each for each in own if status.slot(each.job.uuid) is None), None)

    def _end_instead(self, entry: JobEntry) -> bool:
        """Return whether there is nothing to run: the job has an outcome, or gets one now."""
        uuid = entry.job.uuid
        outcome = next(iter(self._index.find_records(uuid)), None)  # it may be in the trash
        if outcome is not None:
            self._end(outcome)
            return True
        if not any(each is entry for each in self._broker.running(self._worker)):
            return True  # its result was deleted between the two looks
        if entry.cancel:
            self._cancellation.end_unrun(entry)
            return True
        if self._offers[uuid] < MAX_OFFERS:
            return False
        log.error("the worker %s produced no result for %s", self._worker, uuid)
        reason = (
            f"the worker accepted this job {self._offers[uuid]} times without an outcome; "
            "it is not run again (the logs of the worker and the gateway say more)"
        )
        self._cancellation.end_unrun(entry, Outcome.FAILED, reason)
        return True

    def _collect(self, reply: Reply) -> WorkerStatus:
        """Read what is newly committed before the broker learns that the worker is idle."""
        status = reply.status
        # All results of a job are committed together, so it ends once.
        ended = {entry.uuid: entry for entry in self._index.refresh(status.log, status.committed)}
        for entry in ended.values():
            self._end(entry, status.step_s)
        progress = [(slot.uuid, slot.step) for slot in status.slots]
        if progress != self._progress:
            self._progress, self._progress_at = progress, time.monotonic()
        self._broker.observe(self._worker, status)
        return status

    def _end(self, entry: Entry, step_s: float | None = None) -> None:
        self._journal.end(entry.uuid)
        self._offers.pop(entry.uuid, None)
        try:
            line = self._index.read_without_data(entry.uuid)
        except (OSError, DamagedLine, sqlite3.Error) as error:
            log.error("the result of %s cannot be read: %s", entry.uuid, error)
            record = {"errors": ["the result cannot be read (the log of the gateway says why)"]}
        else:
            if line is None:
                return  # it was deleted meanwhile, and its deletion removed the job
            record = orjson.loads(line)
        indexed = {"uuid": entry.uuid, "state": entry.state, "created_time": ""}
        self._broker.end(entry.uuid, indexed | record, step_s)

    def _pause_s(self, status: WorkerStatus) -> float:
        if status.state is not WorkerState.BUSY:
            return IDLE_POLL_S
        passed = time.monotonic() - self._progress_at
        nearest = passed
        left = [slot.steps - slot.step for slot in status.slots if slot.step < slot.steps]
        if status.step_s and left:
            nearest = max(0.0, min(left) * status.step_s - passed)
        return min(WIDEST_POLL_S, max(CLOSEST_POLL_S, nearest * NEARNESS))
