"""The Python client against the real service, and against servers that are not ours."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import client as sde
from client import Client
from client.records import Job
from tests.service import Service, eventually, free_port, running
from tests.stub_gateway import Reply, answering

NEVER = "00000000-0000-4000-8000-000000000000"
SLOW = "tests.pipelines.slow:load"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def remote(service: Service) -> Iterator[Client]:
    service.wait_available()
    with Client(service.url) as opened:
        yield opened


def test_a_prompt_becomes_a_typed_result(remote: Client) -> None:
    seen: list[Job] = []
    (result,) = remote.generate("a fox", seed=4, width=128, on_progress=seen.append)
    assert result.png is not None
    assert Image.open(io.BytesIO(result.png)).size == (128, 64)
    assert (result.prompt, result.seed, result.errors) == ("a fox", 4, [])
    assert result.created_time.tzinfo is not None
    assert result.extra["width"] == 128
    assert seen[-1].state == "succeeded" and seen[-1].step == seen[-1].steps == 50


def test_results_are_read_one_by_one(remote: Client, service: Service) -> None:
    remote.generate("one of many")
    found = [result.uuid for result in remote.results()]
    assert found == [line["uuid"] for line in service.lines()]
    assert [result.uuid for result in remote.results(found[-1])] == found[-1:]
    assert list(remote.results(NEVER)) == []


def test_a_wrong_request_names_field_and_value(remote: Client) -> None:
    with pytest.raises(sde.InvalidRequest, match=r"width: .*multiple of 8.*\(got 65\)") as caught:
        remote.submit("a", width=65)
    assert caught.value.errors[0]["field"] == "width"
    with pytest.raises(sde.InvalidRequest, match="no_such"):
        remote.submit("a", no_such=1)
    with pytest.raises(sde.InvalidRequest, match="JSON"):
        remote.submit("a", guidance_scale=float("nan"))


def test_an_unknown_uuid_is_an_error(remote: Client) -> None:
    for wrong in (NEVER, "x", "../server/status", ""):
        with pytest.raises((sde.UnknownJob, sde.InvalidRequest, sde.UnexpectedReply)):
            remote.job(wrong)
    with pytest.raises(sde.UnknownJob):
        remote.wait(NEVER)


def test_workers_are_listed(remote: Client) -> None:
    (worker,) = remote.workers()
    assert (worker.state, worker.model, worker.machine_size) == ("idle", "instant", "tiny")
    assert remote.is_available()


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "http://host:0", "http://h:x"])
def test_a_bad_address_is_told(url: str) -> None:
    with pytest.raises(sde.BadAddress):
        Client(url)


def test_nobody_there_is_told_with_the_systems_word() -> None:
    with pytest.raises(sde.GatewayUnreachable, match="Connection refused") as caught:
        Client(f"127.0.0.1:{free_port()}").is_available()
    assert "--url" in str(caught.value)


def test_busy_says_when_to_come_back_and_a_wait_can_end_early(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=SLOW) as service:
        remote = Client(service.url)
        uuid = remote.submit("long", num_inference_steps=40)
        with pytest.raises(sde.NotAvailable) as caught:
            remote.submit("second")
        assert caught.value.retry_after_s >= 1
        with pytest.raises(sde.WaitTimeout, match="goes on"):
            remote.wait(uuid, timeout_s=0.1)
        (result,) = remote.wait(uuid)
        assert result.uuid == uuid


def test_a_wait_outlasts_a_killed_gateway(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=SLOW) as service:
        remote = Client(service.url)
        uuid = remote.submit("long", num_inference_steps=30)
        killed = False

        def kill_once(job: Job) -> None:
            nonlocal killed
            if not killed and job.step:
                killed = True
                service.kill("gateway", signal.SIGKILL)
                eventually(service.lines, "the worker finishes by itself")
                service.start("gateway")

        (result,) = remote.wait(uuid, on_progress=kill_once)
        assert result.uuid == uuid and killed


def test_a_wait_gives_up_when_the_gateway_stays_away(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=SLOW) as service:
        remote = Client(service.url, patience_s=0.2)
        uuid = remote.submit("long")
        service.kill("gateway")
        with pytest.raises(sde.GatewayUnreachable):
            remote.wait(uuid)


def test_a_failed_job_says_why(folder: Path) -> None:
    with running(
        folder, "gateway", "gpu_worker", SDE_PIPELINE="tests.pipelines.raises:load"
    ) as service:
        with pytest.raises(sde.GenerationFailed, match="a fault on purpose") as caught:
            Client(service.url).generate("raise")
        assert caught.value.errors == ["ValueError: a fault on purpose"]


def test_no_worker_is_told(folder: Path) -> None:
    with running(folder, "gateway") as service:
        remote = Client(service.url)
        eventually(lambda: remote.workers()[0].state == "unreachable", "no worker")
        with pytest.raises(sde.WorkerUnavailable):
            remote.submit("a")


class TestSaving:
    def test_a_picture_replaces_the_file(self, remote: Client, tmp_path: Path) -> None:
        (result,) = remote.generate("to save")
        path = tmp_path / "a.png"
        path.write_bytes(b"old")
        assert remote.save(result, path) == path
        assert path.read_bytes() == result.png
        assert list(tmp_path.iterdir()) == [path]

    def test_where_nothing_can_be_written(self, remote: Client, tmp_path: Path) -> None:
        (result,) = remote.generate("to save")
        (tmp_path / "file").write_text("")
        for wrong in (tmp_path, tmp_path / "no" / "a.png", tmp_path / "file" / "a.png"):
            with pytest.raises(sde.NotSaved, match="cannot save to"):
                remote.save(result, wrong)
        with pytest.raises(sde.NotSaved):
            remote.save(result, Path("/dev/null"))


RECORD = (
    b'{"uuid":"u","prompt":"p","created_time":"2026-01-01T00:00:00Z","errors":[],"data":"aGk="}'
)

STRANGE: list[tuple[Reply, type[Exception]]] = [
    ((200, JSON, b"<html>"), sde.UnexpectedReply),
    ((200, JSON, b"[" * 100_000 + b"]" * 100_000), sde.UnexpectedReply),
    ((200, JSON, b'{"a": 1}'), sde.UnexpectedReply),
    ((200, JSON, b"[1]"), sde.UnexpectedReply),
    ((200, JSON, b'[{"uuid": 5}]'), sde.UnexpectedReply),
    ((200, JSON, b"[" + RECORD.replace(b"aGk=", b"!!") + b"]"), sde.UnexpectedReply),
    ((200, JSON, b"[" + RECORD.replace(b"2026", b"2x26") + b"]"), sde.UnexpectedReply),
    ((200, JSON, b"[" + RECORD), sde.GatewayUnreachable),
    ((200, {"Content-Length": "9000"}, b"[" + RECORD + b","), sde.GatewayUnreachable),
    ((301, {"Location": "https://elsewhere/"}, b""), sde.UnexpectedReply),
    ((404, {}, b"nothing"), sde.UnexpectedReply),
    ((418, {}, b"teapot"), sde.UnexpectedReply),
    ((500, JSON, b'{"detail": "oh"}'), sde.UnexpectedReply),
    ((502, {}, b""), sde.GatewayUnreachable),
    ((503, {"Retry-After": "soon"}, b""), sde.WorkerUnavailable),
    ((429, {"Retry-After": "7"}, b"[]"), sde.NotAvailable),
    ((422, JSON, b'{"errors": 5}'), sde.InvalidRequest),
]


@pytest.mark.parametrize(("reply", "error"), STRANGE)
def test_strange_replies_are_one_of_our_errors(reply: Reply, error: type[Exception]) -> None:
    with answering({"GET /image/generate": reply}) as url, pytest.raises(error) as caught:
        list(Client(url).results())
    assert str(caught.value)
    assert type(caught.value) is error


def test_a_record_with_further_keys_is_read() -> None:
    line = b"[" + RECORD.replace(b"{", b'{"new": [1], "seed": 9, ') + b"]"
    with answering({"GET /image/generate": (200, JSON, line)}) as url:
        (result,) = Client(url).results()
    assert (result.png, result.seed, result.extra) == (b"hi", 9, {"new": [1]})
