"""Holds the last status, the last exit and the protocol of each worker. It has no lock."""

from __future__ import annotations

import time
from collections.abc import Iterable

from gateway.errors import NoWorker
from gpu_worker.contract.protocol import SlotStatus, WorkerState, WorkerStatus
from gpu_worker.contract.validation_errors import error_text
from gpu_worker.store.exit_report import NO_EXIT, ExitReport

UNREACHABLE, FAILED = "unreachable", "failed"
"""The states that the gateway adds to those of a worker."""

RETRY_S = 5
"""The advice to clients while no worker answers. One that died is started again in seconds."""

LOAD_RETRY_S = 30
"""The advice while no model can be loaded. Workers try again once a minute."""


class WorkerTable:
    """The workers by name. The broker holds its lock.

    `statuses` has None for a worker that does not answer. `mismatches` has a sentence for each
    worker that speaks another version of the protocol.
    """

    def __init__(self, workers: Iterable[str]) -> None:
        self.statuses: dict[str, WorkerStatus | None] = dict.fromkeys(workers)
        self.exits: dict[str, ExitReport] = dict.fromkeys(self.statuses, NO_EXIT)
        self.mismatches: dict[str, str] = {}

    def observe(self, worker: str, status: WorkerStatus | None, mismatch: str | None) -> bool:
        """Store a status, and return whether it differs from the last one."""
        self.mismatches.pop(worker, None)
        if mismatch is not None:
            self.mismatches[worker] = mismatch
        before, self.statuses[worker] = self.statuses[worker], status
        return status != before

    def answering(self) -> list[WorkerStatus]:
        """Return the statuses of the workers that answer."""
        return [status for status in self.statuses.values() if status is not None]

    def check(self) -> None:
        """Raises NoWorker: no worker can take a job, and none will be able to soon."""
        statuses = self.answering()
        if not statuses:
            raise self._unreachable()
        failures = [
            status.load_error
            for status in statuses
            if status.state is WorkerState.LOADING and status.load_error
        ]
        if len(failures) == len(statuses):
            raise NoWorker(LOAD_RETRY_S, f"no worker could load its model: {failures[0]}")

    def _unreachable(self) -> NoWorker:
        loops = [report.reason for report in self.exits.values() if report.is_loop]
        if len(loops) == len(self.exits):
            return NoWorker(LOAD_RETRY_S, f"no GPU worker can be started: {error_text(loops[0])}")
        return NoWorker(RETRY_S, next(iter(self.mismatches.values()), None))


def state_of(status: WorkerStatus | None, report: ExitReport) -> str:
    """Return a worker's state: its own, or FAILED or UNREACHABLE where it does not answer."""
    if status is not None:
        return str(status.state)
    return FAILED if report.is_loop else UNREACHABLE


def step_age_s(slot: SlotStatus) -> float | None:
    """Return the seconds since the present step of a slot's job began; None before its first."""
    return None if slot.stepped_at is None else max(0.0, time.monotonic() - slot.stepped_at)
