"""The hub of events without its thread: what each page gets, bounds, and pages that leave."""

from __future__ import annotations

import json
from typing import Any

from gateway.events.event_hub import HEARTBEAT_S, IDLE_S, EventHub
from gateway.events.event_ring import EventRing
from gateway.events.job_changes import JobChanges
from gateway.http.detached_stream import MAX_WAITING_BYTES, DetachedConnection
from gateway.jobs.broker import Broker
from gateway.store.preview_reader import PreviewReader
from gpu_worker.contract.job import Outcome, result_record
from gpu_worker.contract.protocol import SlotStatus, WorkerState, WorkerStatus
from gpu_worker.contract.request import GenerationRequest


class Page:
    """A connection that takes everything until it is closed."""

    def __init__(self, prefix: bytes = b"") -> None:
        self.prefix = prefix
        self.text = b""
        self.is_open = True

    def send(self, data: bytes) -> bool:
        self.text += data
        return self.is_open

    def close(self) -> None:
        self.is_open = False

    def events(self) -> list[tuple[str, Any]]:
        messages = [each.split(b"\n") for each in self.text.split(b"\n\n") if b"event: " in each]
        return [(name[7:].decode(), json.loads(data[6:])) for _, name, data in messages]


class Look:
    """What the hub finds at each look, and a clock."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, Any]] = []
        self.now = 0.0

    def __call__(self) -> list[tuple[str, Any]]:
        changes, self.changes = self.changes, []
        return changes


def attached(hub: EventHub, last_id: str | None = None, prefix: bytes = b"") -> Page:
    page = Page(prefix)
    number, page.text = hub.greeting(last_id)
    assert hub.attach(page, number)
    return page


def test_a_page_whose_key_was_revoked_is_closed_at_the_next_heartbeat() -> None:
    look = Look()
    hub = EventHub(look, lambda: look.now)
    page, other = Page(), attached(hub)
    is_admitted = True
    assert hub.attach(page, hub.greeting(None)[0], lambda: is_admitted)
    look.now += HEARTBEAT_S
    hub.run_once()
    assert page.is_open and page.text
    is_admitted = False
    hub.publish("change", 1)
    look.now += HEARTBEAT_S
    hub.run_once()
    assert not page.is_open and page.events() == [] and other.events() == [("change", 1)]


def test_each_page_gets_what_comes_after_it() -> None:
    look = Look()
    hub = EventHub(look, lambda: look.now)
    hub.publish("change", "nobody is there")
    first = attached(hub)
    look.changes = [("job", 1)]
    hub.run_once()
    second = attached(hub)
    hub.publish("change", 2)
    hub.run_once()
    assert first.events() == [("job", 1), ("change", 2)] and second.events() == [("change", 2)]
    second.is_open = False
    hub.publish("change", 3)
    hub.run_once()
    hub.publish("change", 4)
    hub.run_once()
    assert first.events()[2:] == [("change", 3), ("change", 4)]
    assert second.events()[1:] == [("change", 3)]


def test_silence_is_broken_by_a_comment() -> None:
    look = Look()
    hub = EventHub(look, lambda: look.now)
    page = attached(hub)
    look.now = HEARTBEAT_S
    hub.run_once()
    hub.run_once()
    assert page.text.count(b": still here\n\n") == 1


def test_without_pages_nobody_looks_and_who_comes_back_fetches_again() -> None:
    look = Look()
    hub = EventHub(look, lambda: look.now)
    page = attached(hub)
    last_id = page.text.split(b"id: ")[1].split(b"\n")[0].decode()
    page.is_open = False
    hub.publish("change", 1)
    hub.run_once()
    back = attached(hub, last_id)
    hub.run_once()
    assert back.events() == [("change", 1)]
    back.is_open = False
    hub.publish("change", 2)
    hub.run_once()
    look.now = IDLE_S + 1
    hub.run_once()
    look.changes = [("job", 3)]
    hub.run_once()
    assert look.changes == [("job", 3)]
    assert attached(hub, last_id).events() == [("resync", {})]


def test_the_prefix_of_a_proxy_comes_before_a_url() -> None:
    look = Look()
    hub = EventHub(look, lambda: look.now)
    page = attached(hub, prefix=b"/sd")
    look.changes = [("preview", {"url": "/image/x"}), ("job", {"url": "/image/x"})]
    hub.run_once()
    assert page.events() == [("preview", {"url": "/sd/image/x"}), ("job", {"url": "/image/x"})]


def test_the_ring_is_bounded_and_knows_what_it_lacks() -> None:
    ring = EventRing(size=3)
    for number in range(5):
        ring.add("job", number)
    assert [event.number for event in ring.after(2)] == [3, 4, 5]
    assert ring.is_held(2) and ring.is_held(5) and not ring.is_held(1) and not ring.is_held(6)
    assert ring.number(ring.id(4).decode()) == 4
    for text in ("", "x", "x.4", ring.id(1).decode(), ring.id(6).decode(), "1.1.1"):
        assert ring.number(text) is None


class Channel:
    """A connection of waitress whose client reads nothing."""

    connected = True
    will_close = False
    total_outbufs_len = 0

    @property
    def server(self) -> Channel:
        return self

    def pull_trigger(self) -> None:
        self.triggered = True


def test_a_page_that_does_not_read_is_closed() -> None:
    channel, sent = Channel(), []
    page = DetachedConnection(channel, sent.append)
    assert page.send(b"a")
    channel.total_outbufs_len = MAX_WAITING_BYTES + 1
    assert not page.send(b"b") and sent == [b"a"]
    assert channel.will_close and channel.triggered


def test_a_job_is_told_from_beginning_to_end_even_between_two_looks(tmp_path: Any) -> None:
    broker = Broker(["gpu-0"], 9)
    changes = JobChanges(broker, PreviewReader(tmp_path, ["gpu-0"]), list)
    status = WorkerStatus(state=WorkerState.IDLE, boot_id="b", log="", committed=0)
    broker.observe("gpu-0", status)
    list(changes.look())
    job, fast = (broker.reserve(GenerationRequest(prompt=text)) for text in "ab")
    broker.enqueue(job)
    (event,) = changes.look()
    assert (event[0], event[1]["state"], event[1]["position"]) == ("job", "queued", 0)
    broker.take("gpu-0")
    assert [name for name, _ in changes.look()] == ["job"]
    slot = SlotStatus(uuid=job.uuid, step=3, steps=50, attempt=1)
    busy = status.model_copy(update={"state": WorkerState.BUSY, "slots": [slot]})
    broker.observe("gpu-0", busy)
    list(changes.look())
    step = slot.model_copy(update={"step": 4})
    broker.observe("gpu-0", busy.model_copy(update={"slots": [step]}))
    ((name, data),) = changes.look()
    assert (name, data["step"], sorted(data)) == (
        "progress",
        4,
        ["eta_s", "position", "step", "steps", "uuid"],
    )
    broker.enqueue(fast)
    for each in (job, fast):
        record = result_record(
            each, outcome=Outcome.FAILED, errors=["no"], data=None, metadata={"steps": 50}
        )
        broker.end(each.uuid, record)
    told = [(name, data["uuid"]) for name, data in changes.look()]
    assert told == [(n, each.uuid) for each in (job, fast) for n in ("job", "result")]
    assert list(changes.look()) == []
