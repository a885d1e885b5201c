"""Assembles the gateway from its settings, and restores the jobs of its previous run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.admission.capabilities import WorkerCapabilities
from gateway.admission.input_images import InputImageReader
from gateway.app import App, Services, create_app
from gateway.jobs import retired_workers
from gateway.jobs.broker import Broker
from gateway.jobs.cancellation import JobCancellation
from gateway.jobs.deletion import ResultDeletion
from gateway.jobs.journal import Journal
from gateway.jobs.lookup import JobLookup
from gateway.jobs.retention import Housekeeping, Retention
from gateway.jobs.submission import JobSubmission
from gateway.settings import GatewaySettings
from gateway.store import consolidation, tombstones
from gateway.store.disk_space import DiskSpace
from gateway.store.index_db import IndexDb
from gateway.store.input_store import InputStore
from gateway.store.preview_reader import PreviewReader
from gateway.store.result_index import ResultIndex
from gateway.workers.dispatcher import Dispatcher
from gateway.workers.model_commands import CommandQueue
from gateway.workers.worker_link import WorkerLink
from gpu_worker.store import segments
from gpu_worker.store.result_log import ResultLog

log = logging.getLogger(__name__)

FIRST_ROUND_S = 1.0
"""How long the start waits for the workers: a reachable one answers in milliseconds."""

OWN_WRITER = "gateway"
"""The writer of the gateway's own result log: outcomes of jobs that no worker ran."""


@dataclass
class Gateway:
    """All parts of the gateway, not started. Streams end when `stopping` is set."""

    app: App
    services: Services
    dispatchers: dict[str, Dispatcher]
    housekeeping: Housekeeping
    stopping: threading.Event

    def start(self) -> None:
        """Start a thread for each worker and the housekeeping thread.

        It returns after one round with each worker, or after FIRST_ROUND_S. So the first request
        after a restart does not get a 503 from workers that are running.
        """
        for dispatcher in self.dispatchers.values():
            dispatcher.start()
        self.housekeeping.start()
        deadline = time.monotonic() + FIRST_ROUND_S
        for dispatcher in self.dispatchers.values():
            dispatcher.wait_for_first_round(max(0.0, deadline - time.monotonic()))


def assemble(settings: GatewaySettings, endpoints: dict[str, str]) -> Gateway:
    """Read the journal and the log, and construct every part.

    Args:
        endpoints: maps a worker's name to its ZeroMQ address.

    Raises:
        OSError: the journal or the log exists but cannot be read.
    """
    journal, index = _open_store(settings)
    services = _services(settings, endpoints, journal, index)
    _restore_jobs(services, list(endpoints))
    services.inputs.sweep(lambda uuid: uuid in journal.pending or index.find(uuid) is not None)
    dispatchers = {
        name: Dispatcher(
            name,
            WorkerLink(endpoint),
            services.broker,
            journal,
            index,
            services.cancellation,
            services.capabilities,
            services.commands[name],
        )
        for name, endpoint in endpoints.items()
    }
    retention = Retention(settings.keep_days, settings.keep_results, settings.keep_mib << 20)
    housekeeping = Housekeeping(
        index,
        services.deletion,
        retention,
        settings.segment_mib << 20,
        lambda name: _rotate(name, services.cancellation, dispatchers),
    )
    app = create_app(services, settings.max_body_mib << 20)
    return Gateway(app, services, dispatchers, housekeeping, services.stopping)


def _open_store(settings: GatewaySettings) -> tuple[Journal, ResultIndex]:
    index = ResultIndex(settings.results_dir, settings.deletions_path)
    journal = Journal(
        settings.journal_path, write_tombstones=_tombstone_writer(settings.deletions_path, index)
    )
    journal.open()
    try:
        consolidation.clean_up(settings.results_dir)
    except OSError as error:
        log.error("the files of an interrupted merge cannot be removed: %s", error)
    index.open(journal.deleted)
    return journal, index


def _tombstone_writer(path: Path, index: ResultIndex) -> Callable[[dict[str, str | None]], None]:
    def write(deleted: dict[str, str | None]) -> None:
        tombstones.append(path, deleted)
        index.index_tombstones()

    return write


def _services(
    settings: GatewaySettings, endpoints: dict[str, str], journal: Journal, index: ResultIndex
) -> Services:
    sequence = max(journal.last_sequence, index.query(IndexDb.last_sequence))
    broker = Broker(list(endpoints), settings.queue_size, sequence)
    storage = DiskSpace(
        settings.results_dir, settings.min_free_mib << 20, lambda: broker.workers().values()
    )
    inputs = InputStore(settings.inputs_dir)
    capabilities = WorkerCapabilities()
    own_log = ResultLog(settings.results_dir, OWN_WRITER, settings.segment_mib << 20)
    return Services(
        broker=broker,
        journal=journal,
        index=index,
        inputs=inputs,
        storage=storage,
        previews=PreviewReader(settings.previews_dir, endpoints),
        capabilities=capabilities,
        image_reader=InputImageReader(round(settings.max_input_mpix * 1_000_000)),
        lookup=JobLookup(broker, index),
        submission=JobSubmission(broker, journal, index, storage, inputs, capabilities),
        cancellation=JobCancellation(broker, journal, index, own_log),
        deletion=ResultDeletion(broker, journal, index, inputs),
        commands={name: CommandQueue() for name in endpoints},
        stopping=threading.Event(),
    )


def _rotate(name: str, cancellation: JobCancellation, dispatchers: dict[str, Dispatcher]) -> None:
    """Tell the writer of a segment to start a new one."""
    segment = segments.parse(name)
    if segment is None:
        return
    if segment.writer == OWN_WRITER:
        cancellation.rotate()
    elif segment.writer in dispatchers:
        dispatchers[segment.writer].rotate(name)


def _restore_jobs(services: Services, workers: list[str]) -> None:
    """Restore each job without an outcome: at its worker, or in the queue in its order."""
    journal, index = services.journal, services.index
    for uuid in list(journal.pending):
        if index.find(uuid) is not None:
            journal.end(uuid)
    holders = {each.worker for each in journal.pending.values() if each.worker is not None}
    retired = retired_workers.reclaim_jobs(
        index.directory,
        workers,
        holders,
        lambda uuid: uuid in journal.pending or index.find(uuid) is not None,
    )
    for pending in sorted(journal.pending.values(), key=lambda each: each.job.sequence):
        worker = None if pending.worker in retired else pending.worker
        services.broker.restore(pending.job, worker, pending.cancel)
    if journal.pending:
        log.info("restored %d jobs of the previous run", len(journal.pending))
