"""Assembles the gateway from its settings, and restores the jobs of its previous run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gateway.access.authentication import Authentication
from gateway.access.failure_limit import FailureLimit
from gateway.access.hosts import HostAllowlist
from gateway.access.keyring import Keyring, parse_environment
from gateway.access.origins import OriginCheck
from gateway.access.proxies import TrustedProxies
from gateway.access.rules import AccessRules
from gateway.access.sessions import Sessions
from gateway.admission.capabilities import WorkerCapabilities
from gateway.admission.input_images import InputImageReader
from gateway.app import Application, create_app
from gateway.dialects.blocking import JobWaiter
from gateway.dialects.openai.options import OpenAiOptions
from gateway.dialects.openai.signed_urls import read_secret
from gateway.events.event_hub import EventHub
from gateway.events.job_changes import JobChanges
from gateway.jobs.broker import Broker
from gateway.jobs.cancellation import JobCancellation
from gateway.jobs.deletion import ResultDeletion
from gateway.jobs.job_entry import JobObserver
from gateway.jobs.journal import Journal
from gateway.jobs.lookup import JobLookup
from gateway.jobs.retention import Housekeeping, Retention, newest_time
from gateway.jobs.submission import JobSubmission
from gateway.jobs.trash import ResultTrash
from gateway.monitoring.counts import Counts
from gateway.monitoring.job_log import JobLog
from gateway.monitoring.job_observers import JobObservers
from gateway.previous_run import restore_jobs, sweep_inputs
from gateway.routes.server import worker_views
from gateway.services import Services
from gateway.settings import GatewaySettings
from gateway.store import consolidation, tombstones
from gateway.store.disk_space import DiskSpace
from gateway.store.gallery.image_name import ImageName
from gateway.store.gallery.labels_log import LabelsLog
from gateway.store.gallery.thumbnail_cache import ThumbnailCache
from gateway.store.index_db import IndexDb
from gateway.store.indexer import IndexProgress
from gateway.store.input_store import InputStore
from gateway.store.preview_reader import PreviewReader
from gateway.store.result_index import ResultIndex
from gateway.store.retention_clock import RetentionClock
from gateway.workers.dispatcher import Dispatcher
from gateway.workers.model_commands import CommandQueue
from gateway.workers.worker_link import WorkerLink
from gpu_worker.store import exit_report, process, segments
from gpu_worker.store.result_log import ResultLog

log = logging.getLogger(__name__)

FIRST_ROUND_S = 1.0
"""How long the start waits for the workers: a reachable one answers in milliseconds."""

OWN_WRITER = "gateway"
"""The writer of the gateway's own result log: outcomes of jobs that no worker ran."""


@dataclass
class Gateway:
    """All parts of the gateway, not started. Streams end when `stopping` is set."""

    app: Application
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
        self.services.events.start()
        self.services.waiter.start(self.services.broker, self.services.cancellation)
        threading.Thread(target=self._sweep_thumbnails, name="thumbnails", daemon=True).start()
        deadline = time.monotonic() + FIRST_ROUND_S
        for dispatcher in self.dispatchers.values():
            dispatcher.wait_for_first_round(max(0.0, deadline - time.monotonic()))

    def _sweep_thumbnails(self) -> None:
        """Remove the thumbnails of images that were deleted just before a crash."""
        index = self.services.index
        self.services.thumbnails.sweep(lambda name: index.find_image(*name, trash=True) is not None)


def assemble(
    settings: GatewaySettings,
    endpoints: dict[str, str],
    progress: IndexProgress | None = None,
    access: AccessRules | None = None,
) -> Gateway:
    """Read the journal and the log, and construct every part.

    Args:
        endpoints: maps a worker's name to its ZeroMQ address.
        progress: is updated while the index is built.
        access: the rules that the HTTP server has already; None constructs them.

    Raises:
        OSError: the journal or the log exists but cannot be read, or is of a newer version.
    """
    journal, index = _open_store(settings, progress)
    clock = RetentionClock(
        settings.journal_path.with_name("retention_clock.json"), lambda: newest_time(index)
    )
    rules = access or access_rules(settings)
    services = _services(settings, endpoints, journal, index, clock, rules)
    restore_jobs(services, list(endpoints))
    sweep_inputs(services)
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
            partial(exit_report.read, exit_report.path(settings.run_dir, name)),
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
        clock=clock,
        empty_trash=services.trash.purge,
    )
    app = create_app(services, settings.max_body_mib << 20)
    return Gateway(app, services, dispatchers, housekeeping, services.stopping)


def _open_store(
    settings: GatewaySettings, progress: IndexProgress | None
) -> tuple[Journal, ResultIndex]:
    index = ResultIndex(
        settings.results_dir, settings.deletions_path, progress, settings.labels_path
    )
    journal = Journal(
        settings.journal_path, write_tombstones=_tombstone_writer(settings.deletions_path, index)
    )
    journal.open()
    index.open(journal.deleted)
    try:  # only when nothing of the store is of a newer version
        consolidation.clean_up(settings.results_dir)
    except OSError as error:
        log.error("the files of an interrupted merge cannot be removed: %s", error)
    return journal, index


def _tombstone_writer(path: Path, index: ResultIndex) -> Callable[[dict[str, str | None]], None]:
    def write(deleted: dict[str, str | None]) -> None:
        tombstones.append(path, deleted)
        index.index_tombstones()

    return write


def _services(
    settings: GatewaySettings,
    endpoints: dict[str, str],
    journal: Journal,
    index: ResultIndex,
    clock: RetentionClock,
    access: AccessRules,
) -> Services:
    counts = Counts()
    job_log = JobLog(counts, with_prompts=settings.log_prompts == "1")
    waiter = JobWaiter(settings.on_disconnect)
    broker = _broker(settings, endpoints, journal, index, JobObservers(job_log, waiter))
    previews = PreviewReader(settings.previews_dir, endpoints)
    storage = DiskSpace(
        settings.results_dir, settings.min_free_mib << 20, lambda: broker.workers().values()
    )
    inputs = InputStore(settings.inputs_dir)
    capabilities = WorkerCapabilities()
    own_log = ResultLog(settings.results_dir, OWN_WRITER, settings.segment_mib << 20)
    gallery = _gallery(settings, broker, journal, index, inputs, previews, clock)
    accepting = (broker, journal, index, storage, inputs, capabilities)
    return Services(
        broker=broker,
        journal=journal,
        index=index,
        inputs=inputs,
        storage=storage,
        previews=previews,
        capabilities=capabilities,
        image_reader=_image_reader(settings),
        lookup=JobLookup(broker, index),
        submission=JobSubmission(*accepting, always_waits=settings.every_job_waits),
        cancellation=JobCancellation(broker, journal, index, own_log),
        **gallery._asdict(),
        commands={name: CommandQueue() for name in endpoints},
        access=access,
        job_log=job_log,
        counts=counts,
        waiter=waiter,
        openai=OpenAiOptions(
            settings.openai_aliases, read_secret(settings.url_secret_path), settings.on_disconnect
        ),
        automatic1111_options=settings.automatic1111_options_path,
        stopping=process.SignalEvent(),
    )


def _broker(
    settings: GatewaySettings,
    endpoints: dict[str, str],
    journal: Journal,
    index: ResultIndex,
    observer: JobObserver,
) -> Broker:
    return Broker(
        list(endpoints),
        settings.queue_size,
        max(journal.last_sequence, index.query(IndexDb.last_sequence)),
        queue_per_key=settings.queue_per_key,
        observer=observer,
    )


def _image_reader(settings: GatewaySettings) -> InputImageReader:
    return InputImageReader(round(settings.max_input_mpix * 1_000_000), settings.request_limits)


class _Gallery(NamedTuple):
    """The parts that a gallery needs, and the deletion that tells them of it."""

    events: EventHub
    thumbnails: ThumbnailCache
    deletion: ResultDeletion
    trash: ResultTrash


def _gallery(
    settings: GatewaySettings,
    broker: Broker,
    journal: Journal,
    index: ResultIndex,
    inputs: InputStore,
    previews: PreviewReader,
    clock: RetentionClock,
) -> _Gallery:
    events = EventHub(JobChanges(broker, previews, lambda: worker_views(broker)).look)
    broker.listen(events.wake)
    thumbnails = ThumbnailCache(settings.thumbnails_dir, settings.thumbnails_mib << 20)

    def forget(names: set[ImageName]) -> None:
        thumbnails.remove(names)
        events.publish("change", {"images": sorted(map(str, names)), "deleted": True})

    deletion = ResultDeletion(broker, journal, index, inputs, forget)
    trash = ResultTrash(
        broker,
        index,
        deletion,
        LabelsLog(settings.labels_path, index.is_removed),
        settings.trash_days,
        lambda change: events.publish("change", change),
        forget,
        clock.stamp,
    )
    return _Gallery(events, thumbnails, deletion, trash)


def open_keyring(settings: GatewaySettings) -> Keyring:
    """Return the keys of the settings and of the file. Raises KeyFileInvalid."""
    return Keyring(settings.keys_path, parse_environment(settings.keys.get_secret_value()))


def access_rules(settings: GatewaySettings) -> AccessRules:
    """Return what decides who may use the service. Raises KeyFileInvalid."""
    keyring, sessions = open_keyring(settings), Sessions(settings.sessions_path)
    return AccessRules(
        proxies=TrustedProxies(settings.trusted_proxies),
        hosts=HostAllowlist(settings.host, settings.allowed_hosts),
        origins=OriginCheck(settings.allowed_origins),
        keyring=keyring,
        sessions=sessions,
        authentication=Authentication(
            keyring, sessions, FailureLimit(), settings.is_local, settings.allow_anonymous
        ),
        cookie=f"sde_session_{settings.port}",  # browsers send cookies to every port of a host
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
