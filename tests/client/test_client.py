"""The Python client against the real service, and against servers that are not ours."""

from __future__ import annotations

import contextlib
import io
import selectors
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import sde_client as sde
from PIL import Image
from sde_client import Client
from sde_client.records import Job

from tests.support.service import DEADLINE_S, Service, eventually, free_port, running
from tests.support.stored import store
from tests.support.stub_gateway import Reply, answering

NEVER = "00000000-0000-4000-8000-000000000000"
SLOW, HELD = "tests.pipelines.slow:load", "tests.pipelines.held:load"
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
    with pytest.raises(sde.InvalidRequest, match="guidance_scale: must be a finite number"):
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
    assert worker.trouble is None
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
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD) as service:
        remote = Client(service.url)
        uuid = remote.submit("long", num_inference_steps=2)
        with pytest.raises(sde.NotAvailable) as caught:
            remote.submit("second", queue=False)
        assert caught.value.retry_after_s >= 1
        with pytest.raises(sde.WaitTimeout, match="keeps running"):
            remote.wait(uuid, timeout_s=0.1)
        service.release()
        (result,) = remote.wait(uuid)
        assert result.uuid == uuid


@contextmanager
def losing_a_reply(port: int, on_loss: Callable[[], None] = lambda: None) -> Iterator[str]:
    """A proxy's url: it hands requests on to `port`, and drops the first reply that comes."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def pump(client: socket.socket, gateway: socket.socket, loses: bool) -> bool:
        with selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, gateway)
            ready.register(gateway, selectors.EVENT_READ, client)
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not data:
                        return loses
                    if loses and key.fileobj is gateway:
                        on_loss()
                        return False
                    key.data.sendall(data)

    def serve() -> None:
        loses = True
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # shut down
                return
            taken.append(client)
            with (
                client,
                contextlib.suppress(OSError),  # either side may be gone
                socket.create_connection(("127.0.0.1", port)) as gateway,
            ):
                loses = pump(client, gateway, loses)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for each in (listener, *taken):
            with contextlib.suppress(OSError):  # closed already
                each.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


class TestExactlyOnce:
    def test_a_lost_reply_makes_no_second_job(self, remote: Client, service: Service) -> None:
        before = {job.uuid for job in remote.jobs(1000)}
        with losing_a_reply(service.port) as url, Client(url) as unlucky:
            uuid = unlucky.submit("its reply is lost")
        assert {job.uuid for job in remote.jobs(1000)} - before == {uuid}
        (result,) = remote.wait(uuid)
        assert [found["uuid"] for found in service.lines()].count(uuid) == 1
        assert result.prompt == "its reply is lost"

    def test_a_gateway_killed_before_it_takes_the_job(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker") as service, Client(service.url) as remote:
            gateway = psutil.Process(service.children["gateway"].pid)
            gateway.suspend()
            eventually(lambda: gateway.status() == psutil.STATUS_STOPPED, "the gateway stands")
            with ThreadPoolExecutor(1) as pool:
                submitted = pool.submit(remote.submit, "taken once", num_inference_steps=2)
                eventually(lambda: is_connected(service.port), "the request is under way")
                service.kill("gateway")
                service.start("gateway")
                uuid = submitted.result()
            remote.wait(uuid)
            assert [job.uuid for job in remote.jobs()] == [uuid]
            assert [found["uuid"] for found in service.lines()] == [uuid]

    def test_a_gateway_killed_after_it_took_the_job(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=SLOW) as service:

            def restart() -> None:
                service.kill("gateway")
                service.start("gateway")

            with losing_a_reply(service.port, restart) as url, Client(url) as remote:
                uuid = remote.submit("taken once", num_inference_steps=5)
                remote.wait(uuid)
                assert [found["uuid"] for found in service.lines()] == [uuid]
                assert list(remote.results()) == list(remote.results(uuid))

    def test_nobody_there_at_the_first_try_is_told_at_once(self) -> None:
        with pytest.raises(sde.GatewayUnreachable, match="Connection refused") as caught:
            Client(f"127.0.0.1:{free_port()}", patience_s=3600).submit("a")
        assert not caught.value.reached

    def test_when_patience_ends_the_key_is_told(self) -> None:
        with (
            answering({"POST /image/generate": (502, {}, b"")}) as url,
            pytest.raises(
                sde.GatewayUnreachable, match=r"unknown whether.* the key k 7 "
            ) as caught,
        ):
            Client(url, patience_s=0.1).submit("a", idempotency_key="k 7")
        assert caught.value.reached

    def test_the_same_key_is_the_same_job(self, remote: Client) -> None:
        uuid = remote.submit("keyed", idempotency_key="a key")
        remote.wait(uuid)
        assert remote.submit("keyed", idempotency_key="a key") == uuid
        with pytest.raises(sde.Conflict, match=f"a key.*{uuid}"):
            remote.submit("another prompt", idempotency_key="a key")
        assert remote.submit("keyed") != uuid

    @pytest.mark.parametrize("key", ["", "x" * 256, "ä", "a\nb", " a"])
    def test_what_is_no_key_is_told(self, remote: Client, key: str) -> None:
        with pytest.raises(sde.InvalidRequest, match=r"(?i)idempotency.key"):
            remote.submit("a", idempotency_key=key)


def is_connected(port: int) -> bool:
    """Whether this process has a connection to it."""
    connections = psutil.Process().net_connections("tcp")
    return any(c.raddr and c.raddr.port == port and c.status == "ESTABLISHED" for c in connections)


def test_progress_comes_as_it_happens(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD) as service:
        remote = Client(service.url)
        seen: list[Job] = []

        def look(job: Job) -> None:
            seen.append(job)
            if job.step == 1:
                service.release()  # had it not been told of the first step, it would never end

        remote.generate("steps", num_inference_steps=30, on_progress=look)
        steps = [job.step for job in seen]
        assert steps == sorted(steps) and {1, 30} <= set(steps)
        assert len(seen) <= len(set(steps)) + 10  # each look was worth it
        started, ended = seen[-1].started_time, seen[-1].ended_time
        assert started and ended and seen[-1].created_time <= started < ended
        assert seen[0].ended_time is None and not seen[-1].cancel_requested


def test_a_server_that_does_not_hold_its_answer_is_not_rushed() -> None:
    job = (
        b'{"uuid": "u", "state": "running", "position": null, "step": 1, "steps": 9, "eta_s": null,'
        b'"attempts": 1, "created_time": "2026-01-01T00:00:00Z", "errors": []}'
    )
    seen: list[Job] = []
    with answering({"GET /image/jobs/u": (200, JSON, job)}) as url, pytest.raises(sde.WaitTimeout):
        Client(url).wait("u", timeout_s=1, on_progress=seen.append)
    assert 2 <= len(seen) <= 12
    times = (seen[0].started_time, seen[0].ended_time)
    assert (seen[0].cancel_requested, times) == (False, (None, None))


def test_jobs_are_listed_canceled_and_awaited(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD, SDE_QUEUE_SIZE="5") as service:
        remote = Client(service.url)
        first, second, third = (
            remote.submit(name, num_inference_steps=400) for name in ("first", "second", "third")
        )
        assert [job.uuid for job in remote.jobs()] == [third, second, first]
        assert [job.uuid for job in remote.jobs(limit=1)] == [third]
        service.wait_step(first)
        unchanged = remote.job(third, wait_s=0.2)
        assert (unchanged.state, unchanged.position) == ("queued", 1)
        with ThreadPoolExecutor(2) as pool:
            moved = pool.submit(remote.job, third, wait_s=30)
            awaited = pool.submit(Client(service.url).wait, second)
            canceled = Client(service.url).cancel(second)
            assert moved.result().position in (0, None)  # None: it runs already
            with pytest.raises(sde.GenerationCanceled, match="was canceled: canceled before"):
                awaited.result()
        assert (canceled.state, canceled.started_time) == ("canceled", None)
        assert canceled.cancel_requested and canceled.ended_time is not None
        for pending in (first, third):
            with pytest.raises(sde.Conflict, match="cancel it, or wait for its end"):
                remote.delete(pending)
            with pytest.raises(sde.NoImage, match="has no image"):
                remote.image(pending)
        assert remote.cancel(first).cancel_requested
        with pytest.raises(sde.GenerationCanceled):
            remote.wait(first)
        assert remote.cancel(first).state == "canceled"
        (record,) = remote.results(first)
        assert (record.state, record.png) == ("canceled", None)
        remote.cancel(third)
        with pytest.raises(sde.GenerationFailed):
            remote.wait(third)


def test_what_has_ended_or_never_was_cannot_be_canceled(remote: Client) -> None:
    (result,) = remote.generate("over")
    with pytest.raises(sde.Conflict, match="has succeeded already"):
        remote.cancel(result.uuid)
    for act in (remote.cancel, remote.delete):
        with pytest.raises(sde.UnknownJob, match=NEVER):
            act(NEVER)
        with pytest.raises(sde.InvalidRequest, match="not a uuid"):
            act("x")


def test_a_result_is_deleted_once_and_for_good(remote: Client) -> None:
    (kept,), (result,) = remote.generate("to keep"), remote.generate("to delete")
    assert result.state == "succeeded" and "state" not in result.extra
    assert remote.image(result.uuid) == result.png
    remote.delete(result.uuid)
    for ask in (remote.delete, remote.job, remote.wait, remote.image, remote.cancel):
        with pytest.raises(sde.Deleted, match=f"{result.uuid} has been deleted"):
            ask(result.uuid)
    assert list(remote.results(result.uuid)) == []
    assert list(remote.results(kept.uuid)) == [kept]


def test_a_picture_that_is_not_there(remote: Client) -> None:
    (result,) = remote.generate("one picture")
    with pytest.raises(sde.NoImage, match=f"{result.uuid} has no image 2"):
        remote.image(result.uuid, 2)
    with pytest.raises(sde.NoImage, match=NEVER):
        remote.image(NEVER)
    for wrong in ("x", "../jobs", ""):
        with pytest.raises((sde.InvalidRequest, sde.NoImage)):
            remote.image(wrong)
    reply = (200, JSON, b"<html>")
    with answering({"GET /image/files/u.png": reply}) as url, pytest.raises(sde.UnexpectedReply):
        Client(url).image("u")


def test_the_newest_results_come_first_and_without_data(remote: Client) -> None:
    made = [remote.generate(f"number {n}")[0] for n in range(3)][::-1]
    assert list(remote.results(limit=3)) == made
    plain = list(remote.results(limit=2, data=False))
    assert [(found.uuid, found.state, found.png) for found in plain] == [
        (result.uuid, "succeeded", None) for result in made[:2]
    ]
    assert next(remote.results(before=made[0].uuid)) == made[1]
    assert list(remote.results(limit=1, before=made[1].uuid)) == made[2:]
    for wrong in ({"limit": 0}, {"before": NEVER}):
        with pytest.raises(sde.InvalidRequest, match=next(iter(wrong))):
            list(remote.results(**wrong))  # type: ignore[arg-type]


def test_a_long_log_is_read_in_pages(folder: Path) -> None:
    newest = store(folder, 1100)[::-1]
    with running(folder, "gateway") as service, Client(service.url) as remote:
        assert [found.uuid for found in remote.results(limit=1050)] == newest[:1050]
        assert [found.uuid for found in remote.results(limit=9999, data=False)] == newest
        assert [found.uuid for found in remote.results(before=newest[10])] == newest[11:]
        assert [found.uuid for found in remote.results()] == newest[::-1]
        storage = remote.storage()
        assert (storage.results, storage.damaged_lines) == (1100, 1)
        assert storage.segments == 1  # the worker's, and the gateway's own
        assert storage.size_bytes > 1100 * 100 and storage.free_bytes and storage.trouble is None


def test_a_full_disk_is_told(folder: Path) -> None:
    with running(folder, "gateway", SDE_MIN_FREE_MIB=str(1 << 40)) as service:
        remote = Client(service.url)
        with pytest.raises(sde.StorageUnavailable, match="SDE_MIN_FREE_MIB"):
            remote.submit("a")
        assert "SDE_MIN_FREE_MIB" in str(remote.storage().trouble)
        assert not remote.is_available()


def test_a_wait_outlasts_a_killed_gateway(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD) as service:
        remote = Client(service.url, patience_s=DEADLINE_S)
        uuid = remote.submit("long", num_inference_steps=2)
        killed = False

        def kill_once(job: Job) -> None:
            nonlocal killed
            if not killed and job.step:
                killed = True
                service.kill("gateway", signal.SIGKILL)
                service.release()
                eventually(service.lines, "the worker finishes by itself")
                service.start("gateway")

        (result,) = remote.wait(uuid, on_progress=kill_once)
        assert result.uuid == uuid and killed


def test_a_wait_gives_up_when_the_gateway_stays_away(folder: Path) -> None:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD) as service:
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
        assert caught.value.errors == [
            "the job ended with an unexpected error: a fault on purpose; the worker's log has more"
        ]


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
    ((409, {}, b""), sde.Conflict),
    ((410, JSON, b"[]"), sde.Deleted),
    ((507, JSON, b'{"title": "full"}'), sde.StorageUnavailable),
    ((204, {}, b""), sde.UnexpectedReply),
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
