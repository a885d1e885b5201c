"""Puts the gateway together from its settings, and takes up what an earlier life has left."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

import falcon

from gateway.admission.capabilities import WorkerCapabilities
from gateway.admission.input_images import InputImageReader
from gateway.app import create_app
from gateway.jobs import retired_workers
from gateway.jobs.broker import Broker
from gateway.jobs.journal import Journal
from gateway.jobs.removal import Removal
from gateway.jobs.retention import Housekeeping, Retention
from gateway.jobs.submission import JobSubmission
from gateway.routes.preview import Previews
from gateway.settings import GatewaySettings
from gateway.store import consolidation, tombstones
from gateway.store.disk_space import DiskSpace
from gateway.store.input_store import InputStore
from gateway.store.result_index import ResultIndex
from gateway.workers.dispatcher import Dispatcher
from gateway.workers.model_commands import CommandQueue
from gateway.workers.worker_link import WorkerLink
from gpu_worker.store import segments
from gpu_worker.store.result_log import ResultLog

log = logging.getLogger(__name__)

FIRST_MEETING_S = 1.0
"""A worker that is there answers in milliseconds; one that is not has been given up by then."""

OWN_WRITER = "gateway"
"""The gateway's own result log: outcomes of jobs that no worker ran."""


@dataclass
class Gateway:
    """All parts, not started. `stopping` tells what would go on for long that the process ends."""

    app: falcon.App[falcon.Request, falcon.Response]
    dispatchers: dict[str, Dispatcher]
    housekeeping: Housekeeping
    stopping: threading.Event

    def start(self) -> None:
        """Start the threads: one a worker, and the housekeeper. Returns when the workers have been
        asked once, so that the first request after a restart does not find them unknown."""
        for dispatcher in self.dispatchers.values():
            dispatcher.start()
        self.housekeeping.start()
        ends = time.monotonic() + FIRST_MEETING_S
        for dispatcher in self.dispatchers.values():
            dispatcher.meet(max(0.0, ends - time.monotonic()))


def assemble(settings: GatewaySettings, endpoints: dict[str, str]) -> Gateway:
    """Read the journal and the log, and wire everything.

    Raises:
        OSError: they are there but cannot be read.
    """
    index = ResultIndex(settings.results_dir, settings.deletions_path)

    def bury(deleted: dict[str, str | None]) -> None:
        tombstones.append(settings.deletions_path, deleted)
        index.bury()

    journal = Journal(settings.journal_path, bury=bury)
    journal.open()
    own_log = ResultLog(settings.results_dir, OWN_WRITER, settings.segment_mib << 20)
    try:
        consolidation.clean_up(settings.results_dir)
    except OSError as error:
        log.error("what a killed merge has left stays: %s", error)
    index.open(journal.deleted)
    sequence = max(journal.last_sequence, index.last_sequence())
    broker = Broker(list(endpoints), settings.queue_size, sequence)
    storage = DiskSpace(
        settings.results_dir, settings.min_free_mib << 20, lambda: broker.workers().values()
    )
    inputs = InputStore(settings.inputs_dir)
    removal = Removal(broker, journal, index, own_log, inputs)
    _restore_jobs(broker, journal, index, list(endpoints))
    inputs.sweep(lambda uuid: uuid in journal.pending or index.find(uuid) is not None)
    capabilities = WorkerCapabilities()
    wishes = {name: CommandQueue() for name in endpoints}
    dispatchers = {
        name: Dispatcher(
            name,
            WorkerLink(endpoint),
            broker,
            journal,
            index,
            removal,
            capabilities,
            wishes[name],
        )
        for name, endpoint in endpoints.items()
    }

    def seal(name: str) -> None:
        segment = segments.parse(name)
        if segment is None:
            return
        if segment.writer == OWN_WRITER:
            removal.begin_segment()
        elif segment.writer in dispatchers:
            dispatchers[segment.writer].seal(name)

    keep = Retention(settings.keep_days, settings.keep_results, settings.keep_mib << 20)
    housekeeping = Housekeeping(index, removal, keep, settings.segment_mib << 20, seal)
    stopping = threading.Event()
    app = create_app(
        broker,
        journal,
        index,
        storage,
        removal,
        intake=JobSubmission(broker, journal, index, storage, inputs, capabilities),
        reader=InputImageReader(round(settings.max_input_mpix * 1_000_000)),
        max_body_bytes=settings.max_body_mib << 20,
        capabilities=capabilities,
        wishes=wishes,
        previews=Previews(settings.previews_dir, endpoints),
        inputs_dir=settings.inputs_dir,
        stopping=stopping,
    )
    return Gateway(app, dispatchers, housekeeping, stopping)


def _restore_jobs(broker: Broker, journal: Journal, index: ResultIndex, workers: list[str]) -> None:
    """Jobs without an outcome go on: at their worker, or in the queue in their order."""
    for uuid in list(journal.pending):
        if index.find(uuid) is not None:
            journal.end(uuid)
    given = {each.worker for each in journal.pending.values() if each.worker is not None}
    retired = retired_workers.reclaim_jobs(
        index.directory,
        workers,
        given,
        lambda uuid: uuid in journal.pending or index.find(uuid) is not None,
    )
    for accepted in sorted(journal.pending.values(), key=lambda a: a.job.sequence):
        worker = None if accepted.worker in retired else accepted.worker
        broker.restore(accepted.job, worker, accepted.cancel)
    if journal.pending:
        log.info("%d jobs of an earlier life go on", len(journal.pending))
