"""Collects the metrics of the service from snapshots, for Prometheus. It asks no worker.

docs/operations.md lists the metrics. No label has a value that a client can choose.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gateway.jobs.broker import Broker
from gateway.jobs.job_entry import DOORS, JobState
from gateway.jobs.journal import Journal
from gateway.jobs.worker_table import FAILED, UNREACHABLE, state_of, step_age_s
from gateway.monitoring.counts import Counts, Histogram, Totals
from gateway.store.disk_space import DiskSpace
from gateway.store.index_db import IndexDb
from gateway.store.result_index import ResultIndex
from gpu_worker.contract.protocol import WorkerState, WorkerStatus
from gpu_worker.store import segments
from gpu_worker.store.exit_report import ExitReport

log = logging.getLogger(__name__)

_MEMORY = (
    ("memory_bytes", "sde_worker_memory_bytes", "Resident memory."),
    ("gpu_memory_bytes", "sde_gpu_memory_bytes", "Used memory of the GPU, by any process."),
    ("gpu_memory_total_bytes", "sde_gpu_memory_total_bytes", "Size of the GPU's memory."),
)

STATES = (*map(str, WorkerState), UNREACHABLE, FAILED)


class ServiceCollector(Collector):
    """Yields each metric family once a scrape."""

    def __init__(
        self,
        broker: Broker,
        journal: Journal,
        index: ResultIndex,
        storage: DiskSpace,
        counts: Counts,
    ) -> None:
        self._broker = broker
        self._journal = journal
        self._index = index
        self._storage = storage
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of now."""
        totals = self._counts.snapshot()
        yield from self._jobs(totals)
        yield from _histograms(totals)
        yield from _workers(self._broker.workers(), self._broker.exits())
        yield from self._store()
        answers = CounterMetricFamily(
            "sde_http_requests", "Answers by route.", labels=("route", "method", "status")
        )
        for labels, count in sorted(totals.answers.items()):
            answers.add_metric(labels, count)
        yield answers

    def _jobs(self, totals: Totals) -> Iterator[Metric]:
        live = GaugeMetricFamily("sde_jobs", "Live jobs.", labels=("state", "door"))
        jobs = self._broker.live_jobs()
        for kind in (JobState.QUEUED, JobState.RUNNING):
            for place in (*DOORS, None):
                live.add_metric((kind.value, place or "unknown"), jobs.get((kind.value, place), 0))
        yield live
        accepted = CounterMetricFamily("sde_jobs_accepted", "Accepted jobs.", labels=("door",))
        for door, count in totals.accepted.items():
            accepted.add_metric((door,), count)
        yield accepted
        ended = CounterMetricFamily("sde_jobs_ended", "Ended jobs.", labels=("state", "door"))
        for (door, state), count in totals.ended.items():
            ended.add_metric((state, door), count)
        yield ended
        yield _gauge("sde_queue_length", "Jobs that wait.", self._broker.queue_length())

    def _store(self) -> Iterator[Metric]:
        try:
            totals = self._index.query(IndexDb.totals)
            names = segments.live_segments(self._index.directory)
        except (OSError, sqlite3.Error) as error:
            log.error("the metrics of the store cannot be read: %s", error)
            return
        damaged = totals.damaged_lines + self._journal.damaged_lines
        yield _gauge("sde_results", "Records in the result log.", totals.results)
        yield _gauge("sde_log_bytes", "Bytes of the records in the log.", totals.live_bytes)
        yield _gauge("sde_log_segments", "Files of the result log.", len(names))
        yield _gauge("sde_log_damaged_lines", "Lines that are skipped.", damaged)
        free = self._storage.free_bytes()
        if free is not None:
            yield _gauge("sde_disk_free_bytes", "Free bytes of the results' disk.", free)
        is_refusing = self._storage.trouble() is not None
        yield _gauge("sde_storage_trouble", "1 while no job is accepted.", int(is_refusing))


def _histograms(totals: Totals) -> Iterator[Metric]:
    families: tuple[tuple[str, str, Histogram], ...] = (
        ("sde_queue_seconds", "Seconds that jobs waited in the queue.", totals.queue),
        ("sde_step_seconds", "Mean seconds of a step, one observation a job.", totals.step),
        ("sde_job_seconds", "Seconds that jobs ran in a worker.", totals.job),
    )
    for name, text, histogram in families:
        yield HistogramMetricFamily(
            name, text, buckets=histogram.cumulative(), sum_value=histogram.total
        )


def _workers(
    statuses: dict[str, WorkerStatus | None], exits: dict[str, ExitReport]
) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "sde_worker_state", "1 for the present state, else 0.", labels=("worker", "state")
    )
    restarts = CounterMetricFamily(
        "sde_worker_restarts", "Starts after the first one.", labels=("worker",)
    )
    for name, status in statuses.items():
        current = state_of(status, exits[name])
        for each in STATES:
            state.add_metric((name, each), int(each == current))
        restarts.add_metric((name,), exits[name].restarts)
    yield from (state, restarts)
    for member, metric, text in _MEMORY:
        values = {name: getattr(status, member, None) for name, status in statuses.items()}
        yield _by_worker(metric, text, values)
    ages = {name: _step_age_s(status) for name, status in statuses.items()}
    yield _by_worker("sde_worker_step_age_seconds", "Seconds since its job's step began.", ages)


def _step_age_s(status: WorkerStatus | None) -> float | None:
    ages = map(step_age_s, status.slots) if status is not None else ()
    return max((age for age in ages if age is not None), default=None)


def _by_worker(name: str, text: str, values: dict[str, float | None]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("worker",))
    for worker, value in values.items():
        if value is not None:
            family.add_metric((worker,), value)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def registry(collector: Collector) -> CollectorRegistry:
    """Return a registry with the service's metrics, and this process's memory and descriptors."""
    metrics = CollectorRegistry()
    metrics.register(collector)
    ProcessCollector(registry=metrics)
    return metrics
