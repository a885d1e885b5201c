"""Restores the jobs of the previous run, and removes the input images that it has left."""

from __future__ import annotations

import logging

from gateway.services import Services
from gateway.store.index_db import IndexDb
from gateway.workers import retired_workers
from gpu_worker.store import segments

log = logging.getLogger(__name__)


def restore_jobs(services: Services, workers: list[str]) -> None:
    """Restore each job without an outcome: at its worker, or in the queue in its order."""
    journal, index = services.journal, services.index
    for uuid in list(journal.pending):
        if index.has_outcome(uuid):
            journal.end(uuid)
    holders = {each.worker for each in journal.pending.values() if each.worker is not None}
    retired = retired_workers.reclaim_jobs(
        index.directory,
        workers,
        holders,
        lambda uuid: uuid in journal.pending or index.has_outcome(uuid),
    )
    for pending in sorted(journal.pending.values(), key=lambda each: each.job.sequence):
        worker = None if pending.worker in retired else pending.worker
        services.broker.restore(pending.job, worker, pending.cancel)
    if journal.pending:
        log.info("restored %d jobs of the previous run", len(journal.pending))


def sweep_inputs(services: Services) -> None:
    """Remove input images that no job needs.

    A damaged line may be the record of any unknown job, and its bytes are kept, also by `sde fsck`.
    While there is one, only the images of deleted jobs are removed.
    """
    journal, index = services.journal, services.index
    damaged_lines = index.query(IndexDb.totals).damaged_lines + journal.damaged_lines
    is_damaged = damaged_lines > 0 or segments.has_saved_damage(index.directory)
    if is_damaged:
        log.info("the input images of unknown jobs stay, because records of the store are damaged")

    def is_needed(uuid: str) -> bool:
        if uuid in journal.pending or index.has_outcome(uuid):
            return True
        return is_damaged and not index.is_deleted(uuid)

    services.inputs.sweep(is_needed)
