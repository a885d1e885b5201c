"""Server-sent events of a job, and its preview: what comes, in which order, and after a death."""

from __future__ import annotations

import io
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from gateway.jobs.job_entry import JobState, JobView
from gateway.routes.events import END_ID, HEARTBEAT_S, LOOK_S, MAX_STREAMS, EventStream, event_id
from tests.support.service import Service, eventually, running

HELD = "tests.pipelines.held:load"
NEVER = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Event:
    """One of a stream."""

    number: int
    name: str
    data: dict[str, Any]


def open_stream(service: Service, uuid: str, last: int | None = None) -> requests.Response:
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    return service.get(f"/image/jobs/{uuid}/events", stream=True, headers=headers)


def events(reply: requests.Response) -> Iterator[Event]:
    """Until the stream ends; a connection that breaks just ends it."""
    assert reply.status_code == 200, reply.text
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    fields: dict[str, str] = {}
    try:
        for line in reply.iter_lines(chunk_size=1, decode_unicode=True):
            if line:
                key, _, value = line.partition(": ")
                fields[key] = value
            elif "event" in fields:
                yield Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))
                fields = {}
            else:
                fields = {}
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
        return


def everything(service: Service, uuid: str, last: int | None = None) -> list[Event]:
    with closing(open_stream(service, uuid, last)) as reply:
        return list(events(reply))


def is_growing(seen: list[Event]) -> bool:
    numbers = [event.number for event in seen]
    return numbers == sorted(numbers)


@pytest.fixture
def held(folder: Path) -> Iterator[Service]:
    with running(folder, "gateway", "gpu_worker", SDE_PIPELINE=HELD, SDE_QUEUE_SIZE="4") as started:
        yield started


def test_a_job_is_told_from_its_place_in_the_queue_to_its_end(held: Service) -> None:
    first = held.submit(num_inference_steps=2)
    held.wait_step(first)
    second = held.submit(num_inference_steps=20)
    seen: list[Event] = []
    with closing(open_stream(held, second)) as reply:
        for event in events(reply):
            seen.append(event)
            if event.name == "state":
                held.release(first)
            if event.name == "preview":
                held.release(second)
    assert (seen[0].name, seen[0].data["state"], seen[0].data["position"]) == ("state", "queued", 0)
    names = [event.name for event in seen]
    assert set(names) == {"state", "progress", "preview", "end"}
    assert names.count("end") == 1 and names[-1] == "end"
    # The event that says that it runs may name its first step already.
    steps = [event.data["step"] for event in seen if event.data.get("state") == "running"]
    assert 1 in steps and steps == sorted(steps)
    progress = [event.data["step"] for event in seen if event.name == "progress"]
    assert progress == sorted(set(progress))
    previews = {event.data["url"] for event in seen if event.name == "preview"}
    assert previews == {f"/image/jobs/{second}/preview"}
    assert is_growing(seen) and seen[-1].number == END_ID
    assert seen[-1].data == held.job(second)
    assert len(held.get("/image/generate", params={"generation_uuid": second}).json()) == 1


def test_it_is_an_event_stream_that_nobody_keeps(held: Service) -> None:
    uuid = held.submit(num_inference_steps=2)
    with closing(open_stream(held, uuid)) as reply:
        assert reply.headers["Cache-Control"] == "no-store"
        assert next(reply.iter_lines(chunk_size=1)) == b"retry: 1000"


def test_an_ended_job_ends_at_once_and_then_the_client_may_stay_away(service: Service) -> None:
    service.wait_available()
    uuid = service.submit()
    service.result(uuid)
    seen = everything(service, uuid)
    assert [event.name for event in seen] == ["end"]
    assert seen[0].data == service.job(uuid)
    assert everything(service, uuid, last=3)[0].name == "end"
    with closing(open_stream(service, uuid, last=seen[0].number)) as reply:
        assert (reply.status_code, reply.content) == (204, b"")


def test_a_canceled_job_ends_its_stream(held: Service) -> None:
    runs = held.submit(num_inference_steps=400)
    waits = held.submit(num_inference_steps=400)
    held.wait_step(runs)
    for uuid in (waits, runs):
        with closing(open_stream(held, uuid)) as reply:
            stream = events(reply)
            assert next(stream).name == "state"
            requests.delete(f"{held.url}/image/jobs/{uuid}", timeout=30)
            seen = list(stream)
            assert seen[-1].name == "end" and seen[-1].data["state"] == "canceled"
            assert seen[-1].data == held.job(uuid)


def test_a_killed_gateway_costs_a_stream_nothing_but_a_reconnect(held: Service) -> None:
    uuid = held.submit(num_inference_steps=60)
    seen: list[Event] = []
    with closing(open_stream(held, uuid)) as reply:
        for event in events(reply):
            seen.append(event)
            if event.data.get("step", 0) >= 1 and "gateway" in held.children:
                held.kill("gateway")
    assert seen and seen[-1].name != "end"
    held.start("gateway")
    held.wait_answering()
    again: list[Event] = []
    with closing(open_stream(held, uuid, seen[-1].number)) as reply:
        for event in events(reply):
            again.append(event)
            held.release()
    assert again[0].name == "state" and again[0].data["state"] == "running"
    assert [event.name for event in again].count("end") == 1 and again[-1].name == "end"
    assert again[-1].data["state"] == "succeeded" and again[-1].data == held.job(uuid)
    assert is_growing(seen + again)


def test_a_job_that_ends_while_the_gateway_is_dead_is_told_after_it(held: Service) -> None:
    uuid = held.submit(num_inference_steps=20)
    held.wait_step(uuid)
    with closing(open_stream(held, uuid)) as reply:
        stream = events(reply)
        first = next(stream)
        held.kill("gateway")
        seen = [first, *stream]
    held.release()
    eventually(lambda: [line["uuid"] for line in held.lines()] == [uuid], "the worker has ended it")
    held.start("gateway")
    held.wait_answering()
    # The gateway knows the end from the log alone.
    again = everything(held, uuid, last=seen[-1].number)
    assert [event.name for event in again] == ["end"]
    assert again[0].data["state"] == "succeeded"
    assert is_growing(seen + again)


def test_a_gateway_that_is_asked_to_stop_waits_for_no_stream(held: Service) -> None:
    jobs = [held.submit(num_inference_steps=400) for _ in range(2)]
    held.wait_step(jobs[0])
    replies = [open_stream(held, uuid) for uuid in jobs]
    streams = [events(reply) for reply in replies]
    assert [next(stream).data["state"] for stream in streams] == ["running", "queued"]
    held.kill("gateway", signal.SIGTERM)
    assert all(event.name != "end" for stream in streams for event in stream)
    assert "still running" not in held.output()


def test_a_worker_that_dies_is_a_new_attempt_in_the_same_stream(held: Service) -> None:
    uuid = held.submit(num_inference_steps=3)
    held.wait_step(uuid)
    with closing(open_stream(held, uuid)) as reply:
        stream = events(reply)
        seen = [next(stream)]
        held.kill("gpu_worker")
        held.start("gpu_worker")
        held.release()
        seen += stream
    assert seen[-1].name == "end" and seen[-1].data["attempts"] == 2
    assert is_growing(seen)


def test_who_asks_for_what_is_not_there_is_told(service: Service) -> None:
    assert service.get(f"/image/jobs/{NEVER}/events").status_code == 404
    assert service.get("/image/jobs/x/events").status_code == 400
    assert service.get(f"/image/jobs/{NEVER}/preview").status_code == 404
    service.wait_available()
    uuid = service.submit()
    service.result(uuid)
    reply = service.get(f"/image/jobs/{uuid}/preview")
    assert reply.status_code == 404 and "succeeded and has no preview" in reply.json()["detail"]
    target = f"{service.url}/image/generate?generation_uuid={uuid}"
    assert requests.delete(target, timeout=30).status_code == 204
    assert service.get(f"/image/jobs/{uuid}/events").status_code == 410
    assert service.get(f"/image/jobs/{uuid}/preview").status_code == 410


def test_streams_have_a_limit_and_other_requests_go_on(held: Service) -> None:
    uuid = held.submit(num_inference_steps=400)
    replies = [open_stream(held, uuid) for _ in range(MAX_STREAMS)]
    try:
        streams = [events(reply) for reply in replies]
        assert all(next(stream).name == "state" for stream in streams)
        refused = held.get(f"/image/jobs/{uuid}/events")
        assert refused.status_code == 503 and int(refused.headers["Retry-After"]) >= 1
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert held.job(uuid)["state"] == "running"
        for reply in replies[:3]:
            reply.close()

        def again() -> bool:
            with closing(open_stream(held, uuid)) as reply:
                return reply.status_code == 200

        eventually(again, "a place is free again")
    finally:
        for reply in replies:
            reply.close()
    requests.delete(f"{held.url}/image/jobs/{uuid}", timeout=30)


def test_streams_that_end_give_their_places_back(service: Service) -> None:
    service.wait_available()
    uuid = service.submit()
    service.result(uuid)
    for _ in range(2 * MAX_STREAMS):
        assert [event.name for event in everything(service, uuid)] == ["end"]


def test_a_running_job_can_be_seen(held: Service) -> None:
    runs = held.submit(num_inference_steps=400)
    waits = held.submit(num_inference_steps=1)

    def look() -> requests.Response | None:
        reply = held.get(f"/image/jobs/{runs}/preview")
        return reply if reply.ok else None

    found = eventually(look, "there is a preview")
    assert found is not None
    assert found.headers["Content-Type"] == "image/jpeg"
    assert found.headers["Cache-Control"] == "no-store"
    assert Image.open(io.BytesIO(found.content)).size == (32, 32)
    reply = held.get(f"/image/jobs/{waits}/preview")
    assert reply.status_code == 404 and "queued" in reply.json()["detail"]
    held.release(waits)
    requests.delete(f"{held.url}/image/jobs/{runs}", timeout=30)
    held.result(runs)
    assert held.get(f"/image/jobs/{runs}/preview").status_code == 404
    held.result(waits)
    assert list((held.data_dir / "run" / "previews").iterdir()) == []


# ---- without a service ----------------------------------------------------------------------


class Clock:
    """Set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


QUEUED = JobView(
    uuid=NEVER,
    state=JobState.QUEUED,
    position=None,
    step=0,
    steps=9,
    eta_s=None,
    attempts=0,
    cancel_requested=False,
    created_time="",
    started_time=None,
    ended_time=None,
    errors=[],
)


def view(state: str, **more: Any) -> JobView:
    return replace(QUEUED, state=JobState(state), **more)


def test_ids_follow_from_the_state_alone() -> None:
    life = [
        view("queued", position=1),
        view("running"),
        view("running", attempts=1, step=1),
        view("running", attempts=1, step=9),
        view("running", attempts=2, step=0),
        view("succeeded", attempts=2, step=9),
    ]
    numbers = [event_id(each) for each in life]
    assert numbers == sorted(set(numbers)) and numbers[-1] == END_ID


def test_silence_is_broken_by_a_heartbeat() -> None:
    clock = Clock()
    pauses: list[float] = []

    def look(wait_s: float, sent: JobView | None) -> JobView:
        pauses.append(wait_s)
        clock.now += wait_s
        return view("queued", position=0)

    left = threading.Event()
    stream = EventStream("u", 7, look, lambda: None, left.set, lambda: False, clock)
    spoken = iter(stream)
    assert next(spoken) == b"retry: 1000\n\n"
    assert next(spoken).startswith(b"id: 7\nevent: state\n")
    assert next(spoken) == b": still here\n\n"
    assert next(spoken) == b": still here\n\n"
    assert pauses[0] == 0.0 and sum(pauses) == 2 * HEARTBEAT_S
    assert set(pauses[1:]) == {LOOK_S}
    assert not left.is_set()
    stream.close()
    assert left.is_set()
