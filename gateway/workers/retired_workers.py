"""Reclaims jobs of workers that were removed from the settings (a smaller SDE_GPUS).

Such a worker would run the job of its note again if it came back, while another worker runs it. So
the note is removed first, under the worker's own lock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from gpu_worker.store import in_flight, process
from gpu_worker.store.in_flight import InFlight
from gpu_worker.store.process import StoreLocked

log = logging.getLogger(__name__)


def reclaim_jobs(
    directory: Path,
    workers: Collection[str],
    holders: Iterable[str],
    is_ours: Callable[[str], bool],
) -> set[str]:
    """Remove the notes of retired workers and return their names.

    Args:
        directory: of the results.
        workers: those in the settings; their notes stay.
        holders: workers that the journal has given jobs to.
        is_ours: whether the gateway knows the job of a note. `sde fsck` reports an unknown one.

    Returns:
        The workers whose jobs others may run. A worker that still runs, or whose note cannot be
        removed, is not among them and keeps its jobs.
    """
    noted = {in_flight.writer_of(path) for path in in_flight.note_paths(directory)} - {None}
    retired = sorted(filter(None, {*noted, *holders}.difference(workers)))
    return {worker for worker in retired if _retire(directory, worker, is_ours)}


def _retire(directory: Path, worker: str, is_ours: Callable[[str], bool]) -> bool:
    notes = InFlight(directory, worker)
    try:
        with process.lock(directory / f"{worker}.lock", f"the store of {worker}"):
            ours = [note.job.uuid for note in notes.read() if is_ours(note.job.uuid)]
            if ours:
                notes.clear(ours)
                log.info("the worker %s is retired and gives back %s", worker, ", ".join(ours))
    except (OSError, StoreLocked) as error:
        log.error("the worker %s is not in the settings but keeps its jobs: %s", worker, error)
        return False
    return True
