"""GET /metrics, /healthz and /readyz, and the dashboard that reads the metrics."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.jobs.job_entry import DOORS
from gateway.monitoring.collector import ServiceCollector, registry
from gateway.monitoring.counts import Counts, Histogram
from gpu_worker.contract.protocol import SlotStatus, WorkerState, WorkerStatus
from gpu_worker.store.exit_report import ExitReport
from tests.support.gateway_parts import Begun, Parts
from tests.support.service import ROOT, Service, eventually, running

MARK = "zebra-crossing-at-midnight"


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by its name and labels; the text is checked by Prometheus' own parser."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float | None:
    return samples(text).get((name, frozenset(labels.items())))


def scrape(service: Service) -> str:
    reply = service.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["Content-Type"].startswith("text/plain; version=")
    return reply.text


def test_jobs_are_counted_by_state_and_door(folder: Path) -> None:
    settings = {"SDE_PIPELINE": "tests.pipelines.held:load", "SDE_QUEUE_SIZE": "3"}
    with running(folder, "gateway", "gpu_worker", **settings) as service:
        first, second, third = (service.submit(num_inference_steps=3) for _ in range(3))
        service.wait_step(first)
        text = scrape(service)
        assert value(text, "sde_jobs", state="running", door="native") == 1
        assert value(text, "sde_jobs", state="queued", door="native") == 2
        assert value(text, "sde_jobs", state="queued", door="openai") == 0
        assert value(text, "sde_queue_length") == 2
        assert value(text, "sde_jobs_accepted_total", door="native") == 3
        assert value(text, "sde_worker_state", worker="gpu-0", state="busy") == 1
        assert (value(text, "sde_worker_step_age_seconds", worker="gpu-0") or 0) >= 0
        requests.delete(f"{service.url}/image/jobs/{third}", timeout=30)
        service.release()
        for uuid in (first, second):
            assert service.result(uuid)["errors"] == []
        eventually(lambda: service.job(second)["state"] == "succeeded", "both have ended")
        text = scrape(service)
        assert value(text, "sde_jobs_ended_total", state="succeeded", door="native") == 2
        assert value(text, "sde_jobs_ended_total", state="canceled", door="native") == 1
        assert value(text, "sde_jobs", state="running", door="native") == 0
        for name, count in (("queue", 2), ("job", 2), ("step", 2)):
            assert value(text, f"sde_{name}_seconds_count") == count
            assert value(text, f"sde_{name}_seconds_bucket", le="+Inf") == count
        assert value(text, "sde_step_seconds_bucket", le="0.025") == 0  # a step takes 0.05 s
        assert value(text, "sde_results") == 3
        assert (value(text, "sde_log_bytes") or 0) > 1000


def test_answers_are_counted_by_template_and_never_by_path(service: Service) -> None:
    """Row 57: no word of a client is a label."""
    service.wait_available()
    service.result(service.submit(MARK))
    headers = {"User-Agent": MARK, "X-Request-ID": MARK}
    for path in (f"/{MARK}", f"/image/jobs/{MARK}", f"/image/files/{MARK}.png?x={MARK}"):
        requests.get(service.url + path, headers=headers, timeout=30)
    requests.request("BREW", f"{service.url}/healthz", timeout=30)
    text = scrape(service)
    assert MARK not in text
    found = {dict(labels)["route"] for name, labels in samples(text) if "http_requests" in name}
    assert {"unknown", "/image/jobs/{uuid}", "/image/generate"} <= found
    assert value(text, "sde_http_requests_total", route="unknown", method="GET", status="404") == 1


def test_a_page_of_ours_has_no_address_of_others_and_no_path(service: Service) -> None:
    """Row 60: nothing is loaded from elsewhere, and nothing of the machine is shown."""
    for path in ("/metrics", "/healthz", "/readyz"):
        reply = service.get(path)
        assert "http:" not in reply.text and "https:" not in reply.text
        assert str(service.data_dir) not in reply.text and "/tmp" not in reply.text
        assert "Access-Control-Allow-Origin" not in reply.headers
        assert requests.head(service.url + path, timeout=30).status_code == 200
        assert requests.post(service.url + path, timeout=30).status_code == 405
        assert service.get(f"{path}?x=1").status_code == 400


def test_ready_follows_the_worker_and_alive_does_not(folder: Path) -> None:
    with running(folder, "gateway") as service:

        def reason() -> str:
            assert service.get("/healthz").json() == {"status": "ok"}
            reply = service.get("/readyz")
            if reply.status_code == 200:
                assert reply.json() == {"status": "ready"}
                return ""
            assert reply.json()["type"] == "urn:sde:problem:not-ready"
            detail: str = reply.json()["detail"]
            return detail

        assert reason() == "no worker answers"
        service.start("gpu_worker")
        eventually(lambda: not reason(), "it is ready")
        service.children["gpu_worker"].send_signal(signal.SIGSTOP)
        eventually(reason, "it is not ready")
        service.children["gpu_worker"].send_signal(signal.SIGCONT)
        eventually(lambda: not reason(), "it is ready again")
        service.kill("gpu_worker")
        assert eventually(reason, "nobody is there") == "no worker answers"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SDE_PIPELINE": "tests.pipelines.never_loads:load"}, "the workers are loading a model"),
        ({"SDE_MIN_FREE_MIB": "999999999"}, "999999999 must stay free (SDE_MIN_FREE_MIB)"),
    ],
)
def test_ready_says_why_not(folder: Path, settings: dict[str, str], words: str) -> None:
    with running(folder, "gateway", **settings) as service:
        service.start("gpu_worker")
        eventually(lambda: words in service.get("/readyz").text, words)
        assert service.get("/readyz").status_code == 503
        assert service.get("/image/generate").json() == []


def test_a_busy_worker_is_ready(folder: Path) -> None:
    with running(
        folder, "gateway", "gpu_worker", SDE_PIPELINE="tests.pipelines.held:load"
    ) as service:
        service.wait_step(service.submit())
        assert service.get("/server/status").json() == {"is_available": False}
        assert service.get("/readyz").status_code == 200


# ---- without processes ------------------------------------------------------------------------


def exposition(parts: Parts) -> str:
    services = parts.services
    collector = ServiceCollector(
        services.broker, services.journal, services.index, services.storage, services.counts
    )
    return generate_latest(registry(collector)).decode()


def status(**members: Any) -> WorkerStatus:
    usual = {"state": WorkerState.BUSY, "boot_id": "b", "log": "", "committed": 0}
    return WorkerStatus.model_validate(usual | members)


def test_a_gpu_shows_its_memory_and_a_silent_worker_its_restarts(folder: Path) -> None:
    parts = Begun(folder)
    slot = SlotStatus(uuid=parts.uuid, stepped_at=0.0)
    parts.broker.observe(
        "gpu-0",
        status(slots=[slot], memory_bytes=5, gpu_memory_bytes=6, gpu_memory_total_bytes=7),
    )
    text = exposition(parts)
    assert value(text, "sde_worker_memory_bytes", worker="gpu-0") == 5
    assert value(text, "sde_gpu_memory_bytes", worker="gpu-0") == 6
    assert value(text, "sde_gpu_memory_total_bytes", worker="gpu-0") == 7
    assert (value(text, "sde_worker_step_age_seconds", worker="gpu-0") or 0) > 1
    parts.broker.observe("gpu-0", None)
    parts.broker.observe_exit("gpu-0", ExitReport("no", None, 1, failures=3, restarts=4))
    text = exposition(parts)
    assert value(text, "sde_worker_state", worker="gpu-0", state="failed") == 1
    assert value(text, "sde_worker_state", worker="gpu-0", state="busy") == 0
    assert value(text, "sde_worker_restarts_total", worker="gpu-0") == 4
    assert value(text, "sde_gpu_memory_bytes", worker="gpu-0") is None


@pytest.mark.parametrize("error", [sqlite3.OperationalError("no"), OSError(5, "no")])
def test_a_store_that_cannot_be_read_costs_its_metrics_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    parts = Begun(folder)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(parts.index, "query", fail)
    text = exposition(parts)
    assert value(text, "sde_results") is None and value(text, "sde_queue_length") == 0


def test_a_bucket_counts_what_is_at_most_its_bound() -> None:
    histogram = Histogram((1, 2))
    for seconds in (0, 1, 1.5, 2, 9):
        histogram.observe(seconds)
    assert histogram.cumulative() == [("1", 2.0), ("2", 4.0), ("+Inf", 5.0)]
    counts = Counts()
    counts.waited(1)
    before = counts.snapshot()
    counts.waited(2)
    assert sum(before.queue.counts) == 1 and sum(counts.snapshot().queue.counts) == 2


def test_the_dashboard_asks_for_metrics_that_exist(folder: Path) -> None:
    parts = Begun(folder)
    parts.broker.observe("gpu-0", status(memory_bytes=1))
    text = exposition(parts)
    families = list(text_string_to_metric_families(text))
    exported = {sample.name for family in families for sample in family.samples}
    exported |= {f"{each.name}_total" for each in families if each.type == "counter"}
    exported |= {each.name for each in families if each.type == "gauge"}
    dashboard = json.loads((ROOT / "docs/grafana.json").read_text())
    queries = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])
    ]
    names = {name for query in queries for name in re.findall(r"\b(?:sde|process)_\w+", query)}
    assert len(queries) >= 12 and names <= exported
    ours = {each.name for each in families if each.name.startswith("sde_")}
    asked = {name.removesuffix("_bucket").removesuffix("_total") for name in names}
    assert ours - asked <= {"sde_results", "sde_log_segments"}
    documented = (ROOT / "docs/operations.md").read_text()
    assert [name for name in sorted(ours) if name not in documented] == []
    labels = set(re.findall(r"by \((\w+)\)", " ".join(queries))) - {"le"}
    assert labels <= {"state", "door", "worker", "status", "route"}
    assert len(DOORS) == 5
