"""Names the parts that the routes use."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from gateway.access.rules import AccessRules
from gateway.admission.capabilities import WorkerCapabilities
from gateway.admission.input_images import InputImageReader
from gateway.dialects.blocking import JobWaiter
from gateway.dialects.openai.options import OpenAiOptions
from gateway.events.event_hub import EventHub
from gateway.jobs.broker import Broker
from gateway.jobs.cancellation import JobCancellation
from gateway.jobs.deletion import ResultDeletion
from gateway.jobs.journal import Journal
from gateway.jobs.lookup import JobLookup
from gateway.jobs.submission import JobSubmission
from gateway.jobs.trash import ResultTrash
from gateway.monitoring.counts import Counts
from gateway.monitoring.job_log import JobLog
from gateway.store.disk_space import DiskSpace
from gateway.store.gallery.thumbnail_cache import ThumbnailCache
from gateway.store.input_store import InputStore
from gateway.store.preview_reader import PreviewReader
from gateway.store.result_index import ResultIndex
from gateway.workers.model_commands import CommandQueue


@dataclass(frozen=True)
class Services:
    """The parts that the routes use. `commands` maps a worker's name to its command queue.

    `automatic1111_options` is the file of the options that clients of that API set.
    """

    broker: Broker
    journal: Journal
    index: ResultIndex
    inputs: InputStore
    storage: DiskSpace
    previews: PreviewReader
    capabilities: WorkerCapabilities
    image_reader: InputImageReader
    lookup: JobLookup
    submission: JobSubmission
    cancellation: JobCancellation
    deletion: ResultDeletion
    trash: ResultTrash
    thumbnails: ThumbnailCache
    events: EventHub
    commands: dict[str, CommandQueue]
    access: AccessRules
    job_log: JobLog
    counts: Counts
    waiter: JobWaiter
    openai: OpenAiOptions
    automatic1111_options: Path
    stopping: threading.Event
