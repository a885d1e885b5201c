"""Takes back what workers have begun that are not of the settings any more (fewer SDE_GPUS).

Each would begin the job of its note again when it is back, although another has been given it: its
note goes first. Its files are written under its own lock only, as it does itself.
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
    given: Iterable[str],
    is_ours: Callable[[str], bool],
) -> set[str]:
    """Void the notes of the workers that are gone, and say who they are.

    Args:
        directory: that of the results.
        workers: those of the settings; nothing of theirs is touched.
        given: workers that the journal has given jobs to.
        is_ours: whether the job of a note waits for its outcome or has one; of another, nobody
            knows what it is, and `sde fsck` says so.

    Returns:
        Those whose jobs others may begin. Who is missing runs all the same, or its note cannot be
        removed: its job stays its own.
    """
    noted = {in_flight.writer_of(path) for path in in_flight.note_paths(directory)} - {None}
    retired = sorted(filter(None, {*noted, *given}.difference(workers)))
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
        log.error("what %s has begun stays its own: %s", worker, error)
        return False
    return True
