"""The checks that need the packages of the server, in the order in which they are printed."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.doctor import admission, data_folder, service, settings_table, worker_probe
from gateway.doctor.finding import Report
from gateway.settings import GatewaySettings
from gpu_worker.settings import DEFAULT_PIPELINE, WorkerSettings


def check(report: Report, environ: Mapping[str, str]) -> None:
    """Add the findings of all checks."""
    report.add(settings_table.check(environ))
    settings = settings_table.valid(GatewaySettings, environ)
    report.add(data_folder.check(settings))
    report.add(admission.check(settings))
    report.add(service.check(settings, environ.get("SDE_KEY")))
    worker = settings_table.valid(WorkerSettings, environ)
    if worker.pipeline == DEFAULT_PIPELINE:
        report.add(worker_probe.check(settings_table.usable(environ), settings.gpus))
    else:
        report.add([worker_probe.not_checked()])
