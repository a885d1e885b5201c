"""Takes back what workers have begun that are not of the settings any more (fewer SDE_GPUS).

Each would begin the job of its note again when it is back, although another has been given it: its
note goes first. Its files are written under its own lock only, as it does itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from gpu_worker.store import process
from gpu_worker.store.in_flight import InFlight
from gpu_worker.store.process import StoreLocked

log = logging.getLogger(__name__)

_NOTE = ".in_flight.json"


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
    noted = {path.name.removesuffix(_NOTE) for path in directory.glob(f"gpu-*{_NOTE}")}
    gone = {*noted, *given}.difference(workers)
    return {worker for worker in sorted(gone) if _retire(directory, worker, is_ours)}


def _retire(directory: Path, worker: str, is_ours: Callable[[str], bool]) -> bool:
    note = InFlight(directory / f"{worker}{_NOTE}")
    try:
        with process.lock(directory / f"{worker}.lock", f"the store of {worker}"):
            begun = note.read()
            if begun is not None and is_ours(begun.job.uuid):
                note.clear()
                log.info("%s is gone: the job %s is not its own any more", worker, begun.job.uuid)
    except (OSError, StoreLocked) as error:
        log.error("what %s has begun stays its own: %s", worker, error)
        return False
    return True
