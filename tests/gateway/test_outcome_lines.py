"""Jobs with several results: an outcome appears, counts and goes as a whole, whatever is cut."""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from sde_client import Client
from sde_client import errors as client_errors
from sde_client.commands.rendering import merged_fields

from gateway.admission.capabilities import WorkerCapabilities
from gateway.jobs.broker import Broker
from gateway.jobs.cancellation import JobCancellation
from gateway.jobs.deletion import ResultDeletion
from gateway.jobs.journal import Journal
from gateway.jobs.retention import Housekeeping, Retention
from gateway.store import consolidation, record_reader
from gateway.store.index_db import IndexDb
from gateway.store.indexer import Indexer
from gateway.store.input_store import InputStore
from gateway.store.result_index import ResultIndex
from gateway.workers.dispatcher import Dispatcher
from gateway.workers.model_commands import CommandQueue
from gateway.workers.worker_link import WorkerLink
from gpu_worker.contract.job import GenerationRequest
from gpu_worker.contract.protocol import SlotStatus, WorkerStatus
from gpu_worker.control.server import ControlServer
from gpu_worker.control.slots import Slots
from gpu_worker.store import outcomes
from gpu_worker.store.durable import DamagedLine
from gpu_worker.store.record_line import encode, parse
from gpu_worker.store.result_log import ResultLog
from tests.support.command import sde
from tests.support.disk import Crash, FaultyDisk
from tests.support.log_records import (
    NAME,
    index_of,
    merge_all,
    opened,
    read,
    record,
    served,
    stubbornly,
    without_index,
)
from tests.support.service import eventually, running

PNG = b"\x89PNG\r\n\x1a\n"


def several(
    count: int, sequence: int = 1, text: str = "a", size: int = 9, **metadata: Any
) -> list[dict[str, Any]]:
    """The records of one job, each with a picture of its own."""
    shared = record(text, sequence) | metadata
    return [
        shared
        | {
            "data": base64.b64encode(PNG + bytes([number]) * size).decode(),
            "image_index": number,
            "num_images": count,
            "seed": 5 + number,
        }
        for number in range(count)
    ]


def text_of(records: list[dict[str, Any]]) -> bytes:
    return b"".join(map(encode, records))


def taken_in(folder: Path, name: str = NAME) -> list[tuple[str, int]]:
    """What a reader takes in of a segment whose writer says nothing, in the order of the file."""
    catalog = IndexDb(Path(":memory:"))
    with contextlib.closing(catalog):
        Indexer(folder).index_segment(catalog, name, None)
        return [(entry.uuid, entry.image_index) for entry in catalog.records_of(name)]


def keys(*groups: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(each["uuid"], each.get("image_index", 0)) for group in groups for each in group]


class TestLine:
    def test_the_two_keys_follow_the_sequence(self) -> None:
        given = several(3)[1] | {"submission": "a" * 32 + ":" + "b" * 32}
        line = encode(given)
        assert list(json.loads(line))[5:11] == [
            "format",
            "state",
            "sequence",
            "image_index",
            "num_images",
            "submission",
        ]
        drawn = parse(line)
        assert (drawn.image_index, drawn.num_images, drawn.submission) == (
            1,
            3,
            given["submission"],
        )
        assert not drawn.is_last and parse(encode(several(3)[2])).is_last

    def test_a_line_without_them_is_the_only_one(self) -> None:
        drawn = parse(encode(record(data="aGk=")))
        assert (drawn.image_index, drawn.num_images, drawn.is_last) == (0, 1, True)

    @pytest.mark.parametrize(("index", "count"), [(3, 3), (0, 0), (1, 1)])
    def test_a_picture_beyond_their_number_is_damage(self, index: int, count: int) -> None:
        with pytest.raises(DamagedLine, match=f"image index {index}, but only {count} images"):
            parse(encode(record() | {"image_index": index, "num_images": count}))


class TestLog:
    def test_all_records_of_a_job_are_one_append(self, tmp_path: Path) -> None:
        log = opened(tmp_path)
        job, other = several(3, 1), record("old", 2)
        log.append_all(job)
        log.append(other)
        assert (tmp_path / NAME).read_bytes() == text_of([*job, other])
        assert read(tmp_path) == [*job, other]
        assert log.position == (NAME, len(text_of([*job, other])))

    def test_half_an_outcome_is_refused(self, tmp_path: Path) -> None:
        log = opened(tmp_path)
        job = several(3)
        mixed = [job[0], several(3)[1], job[2]]
        for wrong in ([], job[:2], job[1:], job[::-1], [*job, job[2]], mixed, [record(), record()]):
            with pytest.raises(ValueError, match="outcome"):
                log.append_all(wrong)
        with pytest.raises(ValueError, match="outcome"):
            log.append(job[0])
        assert (tmp_path / NAME).read_bytes() == b""

    def test_a_job_is_never_split_over_segments(self, tmp_path: Path) -> None:
        log = opened(tmp_path, segment_bytes=10)
        for sequence in range(3):
            log.append_all(several(4, sequence))
        for path in tmp_path.glob("*.jsonl"):
            assert path.read_bytes().count(b"\n") == 4

    def test_cut_at_every_byte_it_is_there_as_a_whole_or_not_at_all(self, tmp_path: Path) -> None:
        before, job = several(2, 1), several(3, 2)
        whole, tail = text_of(before), text_of(job)
        for cut in range(len(tail) + 1):
            (tmp_path / NAME).write_bytes(whole + tail[:cut])
            kept = [*before, *job] if cut == len(tail) else before
            # A reader that comes before the writer, the writer, and a reader after it.
            assert taken_in(tmp_path) == keys(kept), cut
            assert outcomes.complete_length(tmp_path / NAME) == len(text_of(kept)), cut
            with contextlib.closing(opened(tmp_path)) as log:
                assert (tmp_path / NAME).read_bytes() == text_of(kept), cut
                assert log.ends_with(kept[-1]["uuid"])
                assert log.ends_with(job[0]["uuid"]) is (cut == len(tail))
            assert taken_in(tmp_path) == keys(kept), cut

    def test_a_cut_outcome_is_reported_and_made_anew(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        job, other = several(3, 1), several(2, 2)
        (tmp_path / NAME).write_bytes(text_of(job[:2]) + b'{"uuid"')
        log = opened(tmp_path)
        assert f"cut {len(text_of(job[:2])) + 7} bytes of an unfinished outcome" in caplog.text
        assert log.position == (NAME, 0)
        log.append_all(job)
        log.append_all(other)
        assert read(tmp_path) == [*job, *other]

    def test_a_job_in_flight_without_its_last_record_has_no_outcome(self, tmp_path: Path) -> None:
        job = several(3)
        log = opened(tmp_path)
        (tmp_path / NAME).write_bytes(text_of(job[:2]))
        assert not log.ends_with(job[0]["uuid"])

    @pytest.mark.parametrize("vice", ["error", "short", "before", "after"])
    def test_no_failing_call_shows_a_part(self, tmp_path: Path, vice: str) -> None:
        for number in range(1, 500):
            folder = tmp_path / str(number)
            jobs = [several(3, n) for n in range(4)]
            acknowledged: list[dict[str, Any]] = []
            with pytest.MonkeyPatch.context() as patch:
                disk = FaultyDisk(patch, number, vice)
                with contextlib.suppress(Crash, OSError):
                    work(folder, jobs, acknowledged)
                untouched = 0 <= disk.calls < number
            if not folder.exists():
                continue
            consolidation.clean_up(folder)
            seen = index_of(folder)
            found = served(seen)
            seen.close()
            assert [each for each in acknowledged if each not in found] == [], number
            assert found == [each for job in jobs for each in job if job[0] in found], number
            opened(folder).append_all(several(2, 99))
            without_index(folder)
            assert len(read(folder)) == len(found) + 2, number
            if untouched:
                assert number > 15
                return
        raise AssertionError("the work never passed untouched")


def work(
    folder: Path, jobs: list[list[dict[str, Any]]], acknowledged: list[dict[str, Any]]
) -> None:
    """Append over several segments, index, merge, go on; what fails is tried once more."""
    log = ResultLog(folder, "gpu-0", 500)
    log.open()
    index = ResultIndex(folder)
    for job in jobs:
        stubbornly(lambda job=job: log.append_all(job))  # type: ignore[misc]
        acknowledged += job
        if job is jobs[2]:
            index.open()
            merge_all(index)
    index.refresh(*log.position)
    merge_all(index)
    log.close()
    index.close()


class TestReading:
    def test_what_is_being_written_is_taken_in_when_it_is_whole(self, tmp_path: Path) -> None:
        before, job = several(2, 1), several(3, 2)
        (tmp_path / NAME).write_bytes(text_of([*before, *job[:2]]))
        index = index_of(tmp_path)
        assert served(index) == before and index.find(job[0]["uuid"]) is None
        assert index.refresh(NAME, None) == []
        with open(tmp_path / NAME, "ab") as file:
            file.write(encode(job[2]))
        fresh = index.refresh(NAME, (tmp_path / NAME).stat().st_size)
        assert [entry.image_index for entry in fresh] == [0, 1, 2]
        assert served(index) == [*before, *job]

    def test_nothing_waits_for_what_will_not_come(self, tmp_path: Path) -> None:
        """Behind another job's line, a merge or a newer segment, what is there counts."""
        part, other, last = several(3, 1)[:2], several(1, 2), several(3, 3)[:1]
        (tmp_path / NAME).write_bytes(text_of([*part, *other, *last]))
        assert taken_in(tmp_path) == keys(part, other)
        (tmp_path / "gpu-0.00000002.jsonl").touch()
        assert taken_in(tmp_path) == keys(part, other, last)
        (tmp_path / NAME).rename(tmp_path / "gpu-0.00000001-00000002.jsonl")
        (tmp_path / "gpu-0.00000002.jsonl").unlink()
        assert taken_in(tmp_path, "gpu-0.00000001-00000002.jsonl") == keys(part, other, last)

    @pytest.mark.parametrize("followed", [False, True])
    @pytest.mark.parametrize("number", [0, 1, 2])
    @pytest.mark.parametrize("place", [2, 60, -30])
    def test_damage_costs_what_is_damaged(
        self, tmp_path: Path, number: int, place: int, followed: bool
    ) -> None:
        before, job = several(2, 1), several(3, 2)
        after = several(2, 3) if followed else []
        lines = [bytearray(encode(each)) for each in job]
        lines[number][place] ^= 1
        (tmp_path / NAME).write_bytes(text_of(before) + b"".join(lines) + text_of(after))
        size = (tmp_path / NAME).stat().st_size
        left = [each for each in job if each["image_index"] != number]
        opened(tmp_path).close()
        assert (tmp_path / NAME).stat().st_size == size
        index = index_of(tmp_path)
        assert served(index) == [*before, *left, *after]
        assert index.query(IndexDb.totals).damaged_lines == 1
        first = index.find(job[0]["uuid"])
        assert first is not None and first.image_index == left[0]["image_index"]
        assert index.find_image(job[0]["uuid"], number) is None
        index.close()

    @pytest.mark.parametrize("number", [0, 1])
    def test_two_lines_glued_by_damage_cost_both(self, tmp_path: Path, number: int) -> None:
        before, job = several(2, 1), several(3, 2)
        lines = [bytearray(encode(each)) for each in job]
        lines[number][-1] ^= 1
        (tmp_path / NAME).write_bytes(text_of(before) + b"".join(lines))
        opened(tmp_path).close()
        left = [each for each in job if each["image_index"] not in (number, number + 1)]
        assert read(tmp_path) == [*before, *left]

    def test_damage_without_end_is_not_held_in_memory(self, tmp_path: Path) -> None:
        job, other = several(3, 1), several(2, 2)
        content = text_of(job[:1]) + b"\n" * 10_000 + text_of([*job[1:], *other])
        (tmp_path / NAME).write_bytes(content)
        index = index_of(tmp_path)
        assert (
            served(index) == [*job, *other] and index.query(IndexDb.totals).damaged_lines == 10_000
        )

    def test_the_first_outcome_of_a_job_counts(self, tmp_path: Path) -> None:
        job, canceled = several(3, 1), several(2, 2)
        again = [each | {"prompt": "again"} for each in job]
        ended = [{**canceled[0], "num_images": 1, "data": None, "state": "canceled"}]
        (tmp_path / NAME).write_bytes(text_of([*job, *again, *ended, *canceled]))
        assert read(tmp_path) == [*job, *ended]

    def test_a_job_that_ran_again_fills_in_what_damage_took(self, tmp_path: Path) -> None:
        job = several(3, 1)
        (tmp_path / NAME).write_bytes(text_of(job[:1]) + b"#\n" + text_of(job))
        assert read(tmp_path) == job

    def test_lines_of_before_there_were_several(self, tmp_path: Path) -> None:
        old = [record(str(number), number) for number in range(3)]
        job = several(2, 1, text="new")
        (tmp_path / NAME).write_bytes(text_of([old[0], *job, *old[1:]]))
        index = index_of(tmp_path)
        assert sorted(keys(served(index))) == sorted(keys(old, job))
        entry = index.find_image(old[0]["uuid"], 0)
        assert entry is not None and entry.num_images == 1
        assert index.find_all(old[0]["uuid"]) == [entry]

    def test_an_index_of_before_is_made_anew(self, tmp_path: Path) -> None:
        job = several(3, 1)
        (tmp_path / NAME).write_bytes(text_of(job))
        with contextlib.closing(sqlite3.connect(tmp_path / "index.sqlite")) as db, db:
            # As this service made it before a job could have several results.
            db.executescript(
                "CREATE TABLE results (uuid TEXT PRIMARY KEY, sequence INTEGER, state TEXT, "
                "segment TEXT, offset INTEGER, length INTEGER, data_at INTEGER, "
                "data_length INTEGER, submission TEXT) WITHOUT ROWID;"
                "CREATE TABLE segments (name TEXT PRIMARY KEY, read_to INTEGER, damaged INTEGER);"
                "PRAGMA user_version = 2;"
            )
            db.execute("INSERT INTO segments VALUES (?, ?, 0)", (NAME, len(text_of(job))))
        assert read(tmp_path) == job


class TestIndex:
    def test_each_of_a_jobs_records_is_found(self, tmp_path: Path) -> None:
        jobs = [several(3, 1), several(2, 2)]
        log = opened(tmp_path)
        for job in jobs:
            log.append_all(job)
        index = index_of(tmp_path)
        for job in jobs:
            name = job[0]["uuid"]
            entries = index.find_all(name)
            assert [entry.image_index for entry in entries] == list(range(len(job)))
            assert index.find(name) == entries[0]
            for number, (entry, each) in enumerate(zip(entries, job, strict=True)):
                assert index.find_image(name, number) == entry
                assert index.read_data(entry) == each["data"].encode()
                assert json.loads(index.read(entry) or b"")["seed"] == each["seed"]
                bare = json.loads(index.read_without_data(entry) or b"")
                assert (bare["image_index"], bare["data"]) == (number, None)
            for _ in range(2):  # looked up, then where it stood
                assert json.loads(index.read(name) or b"")["image_index"] == 0
            assert index.find_image(name, len(job)) is None
        assert index.query(IndexDb.totals).results == 5
        assert sum(index.query(IndexDb.live_bytes).values()) == (tmp_path / NAME).stat().st_size

    def test_a_submission_finds_its_job(self, tmp_path: Path) -> None:
        digest = "a" * 32
        job = several(3, 1, submission=f"{digest}:{'b' * 32}")
        opened(tmp_path).append_all(job)
        found = index_of(tmp_path).find_submission(digest)
        assert found == (job[0]["uuid"], f"{digest}:{'b' * 32}")

    def test_a_deletion_takes_all(self, tmp_path: Path) -> None:
        jobs = [several(3, 1), several(2, 2)]
        log = opened(tmp_path)
        for job in jobs:
            log.append_all(job)
        index = index_of(tmp_path)
        gone = jobs[0][0]["uuid"]
        before = index.find_all(gone)
        index.delete(gone)
        assert index.find(gone) is None and index.find_all(gone) == []
        assert [index.find_image(gone, number) for number in range(3)] == [None] * 3
        assert [index.read(entry) for entry in before] == [None] * 3 and index.read(gone) is None
        assert served(index) == jobs[1]

    def test_pages_neither_split_nor_double_a_job(self, tmp_path: Path) -> None:
        log = opened(tmp_path)
        for sequence, count in enumerate((1, 3, 2, 4, 1, 1, 3)):
            log.append_all(several(count, sequence))
        index = index_of(tmp_path)
        oldest_first = list(index.oldest_first())
        assert keys(served(index)) == [(e.uuid, e.image_index) for e in oldest_first]
        for limit in range(1, len(oldest_first) + 2):
            pages = []
            last = None
            while page := index.newest_first(limit, last):
                pages.append(page)
                last = page[-1]
                assert len({entry.uuid for entry in page[:limit]}) == len(
                    {entry.uuid for entry in page}
                )
            assert [entry for page in pages for entry in page] == oldest_first[::-1]
            assert all(len(page) >= limit for page in pages[:-1])
        for entry in oldest_first:
            older = [other for other in oldest_first if other.sequence < entry.sequence]
            assert index.newest_first(99, entry) == older[::-1]

    def test_an_index_that_knows_another_picture_at_the_place_is_found_out(
        self, tmp_path: Path
    ) -> None:
        job = several(3, 1)
        lines = [encode(each) for each in job]
        (tmp_path / NAME).write_bytes(b"".join(lines))
        index = index_of(tmp_path)
        entries = index.find_all(job[0]["uuid"])
        (tmp_path / NAME).write_bytes(b"".join((lines[1], lines[0], lines[2])))
        for entry in entries[:2]:
            for read_entry in (record_reader.whole, record_reader.without_data, record_reader.data):
                with pytest.raises(DamagedLine, match="another image"):
                    read_entry(index.open_segments, entry)
        # Read anew, the index knows better.
        assert index.read_data(entries[1]) == job[1]["data"].encode()

    def test_a_merge_takes_all_of_a_job_and_nothing_of_a_deleted_one(self, tmp_path: Path) -> None:
        jobs = [several(3, sequence) for sequence in range(6)]
        log = opened(tmp_path, segment_bytes=800)
        for job in jobs:
            log.append_all(job)
        index = index_of(tmp_path)
        stream = index.oldest_first()
        first = next(stream)
        index.delete(jobs[1][0]["uuid"])
        merge_all(index)
        left = [jobs[0], *jobs[2:]]
        assert served(index) == [each for job in left for each in job]
        assert index.read_data(first) == jobs[0][0]["data"].encode()
        text = b"".join(path.read_bytes() for path in tmp_path.glob("*.jsonl"))
        assert jobs[1][0]["uuid"].encode() not in text
        index.close()
        without_index(tmp_path)
        assert read(tmp_path) == [each for job in left for each in job]


class Stand:
    """The gateway's parts over a log of jobs with 1, 3, 2 and 4 results."""

    def __init__(self, folder: Path, retention: Retention) -> None:
        self.folder = folder / "disk_backups"
        self.jobs = [several(count, number) for number, count in enumerate((1, 3, 2, 4))]
        log = ResultLog(self.folder, "gpu-0")
        for job in self.jobs:
            log.append_all(job)
        self.journal = Journal(folder / "journal" / "jobs.jsonl")
        self.journal.open()
        self.index = index_of(self.folder)
        self.deletion = ResultDeletion(
            Broker(["gpu-0"], 0), self.journal, self.index, InputStore(folder / "inputs")
        )
        self.housekeeping = Housekeeping(
            self.index, self.deletion, retention, 1 << 20, lambda _: None
        )

    def left(self) -> list[int]:
        """How many results of each job."""
        found = [entry.uuid for entry in self.index.oldest_first()]
        return [found.count(job[0]["uuid"]) for job in self.jobs]


@pytest.mark.parametrize(
    ("results", "left"),
    [
        (1, [0, 0, 0, 4]),  # what was made last is not deleted for being several
        (4, [0, 0, 0, 4]),
        (5, [0, 0, 2, 4]),
        (6, [0, 0, 2, 4]),
        (7, [0, 3, 2, 4]),
        (9, [0, 3, 2, 4]),
        (10, [1, 3, 2, 4]),
    ],
)
def test_retention_keeps_or_deletes_whole_jobs(
    tmp_path: Path, results: int, left: list[int]
) -> None:
    for folder, retention in (
        (tmp_path / "count", Retention(results=results)),
        (tmp_path / "size", Retention(size_bytes=results * len(encode(several(4)[0])) + 20)),
    ):
        stand = Stand(folder, retention)
        for _ in range(2):
            stand.housekeeping.run_once()
            assert stand.left() == left


def test_retention_by_age_deletes_whole_jobs(tmp_path: Path) -> None:
    stand = Stand(tmp_path, Retention(days=1))
    stand.housekeeping.run_once()
    assert stand.left() == [0, 0, 0, 0]
    assert stand.journal.deleted == {job[0]["uuid"] for job in stand.jobs}


def test_a_deletion_is_counted_by_job(tmp_path: Path) -> None:
    stand = Stand(tmp_path, Retention())
    names = [job[0]["uuid"] for job in stand.jobs]
    assert stand.deletion.delete(names[1], names[3], names[1]) == 2
    assert stand.left() == [1, 0, 2, 0] and stand.deletion.rewrite == {NAME}


def test_a_job_ends_once_when_all_its_results_are_there(folder: Path) -> None:
    """The real control thread, socket and dispatcher; only the pictures are not made."""
    (folder / "run").mkdir()
    log = ResultLog(folder / "disk_backups", "gpu-0")
    log.open()
    slots = Slots(log.position)
    endpoint = f"ipc://{folder}/run/gpu-0.sock"

    def status() -> WorkerStatus:
        view = slots.view()
        return WorkerStatus(
            state=view.state,
            boot_id="a",
            log=view.log,
            committed=view.committed,
            slots=[SlotStatus(uuid=held.job.uuid) for held in view.held],
        )

    ControlServer(endpoint, status, slots).start()
    slots.ready()
    index = index_of(folder / "disk_backups")
    broker = Broker(["gpu-0"], 1)
    ended: list[int] = []

    class Counting(Journal):
        def end(self, uuid: str) -> None:
            ended.append(len(index.find_all(uuid)))
            super().end(uuid)

    counting = Counting(folder / "journal" / "jobs.jsonl")
    counting.open()
    own_log = ResultLog(folder / "disk_backups", "gateway")
    dispatcher = Dispatcher(
        "gpu-0",
        WorkerLink(endpoint),
        broker,
        counting,
        index,
        JobCancellation(broker, counting, index, own_log),
        WorkerCapabilities(),
        CommandQueue(),
    )
    dispatcher.start()
    eventually(broker.available, "the worker is seen")
    job = broker.reserve(GenerationRequest(prompt="a"))
    counting.accept(job)
    broker.enqueue(job)
    held = eventually(lambda: slots.take(0.1), "the job is submitted")
    assert held.job == job
    log.append_all([each | {"uuid": job.uuid} for each in several(3, job.sequence)])
    slots.release(job.uuid, log.position)
    eventually(lambda: broker.view(job.uuid).state == "succeeded", "it is seen to end")
    eventually(broker.available, "the worker is free")
    assert ended == [3] and counting.pending == {}


@pytest.fixture
def jobs() -> list[list[dict[str, Any]]]:
    return [several(1, 1, "one"), several(3, 2, "three"), several(2, 3, "two")]


@pytest.fixture
def url(folder: Path, jobs: list[list[dict[str, Any]]]) -> Iterator[str]:
    """A real gateway over these jobs."""
    log = opened(folder / "disk_backups")
    for job in jobs:
        log.append_all(job)
    with running(folder, "gateway") as service:
        yield service.url


class TestGateway:
    def test_all_pictures_of_a_job_are_served_in_their_order(
        self, url: str, jobs: list[list[dict[str, Any]]]
    ) -> None:
        path = f"{url}/image/generate"
        for job in jobs:
            query = {"generation_uuid": job[0]["uuid"]}
            found = requests.get(path, params=query, timeout=30).json()
            assert keys(found) == keys(job)
            assert [each["data"] for each in found] == [each["data"] for each in job]
            bare = requests.get(path, params={**query, "data": "false"}, timeout=30).json()
            assert keys(bare) == keys(job) and {each["data"] for each in bare} == {None}
        assert keys(requests.get(path, timeout=30).json()) == keys(*jobs)
        state = requests.get(f"{url}/image/jobs/{jobs[1][0]['uuid']}", timeout=30).json()["state"]
        assert state == "succeeded"
        assert requests.get(f"{url}/server/storage", timeout=30).json()["results"] == 6

    def test_pages_end_with_whole_jobs(self, url: str, jobs: list[list[dict[str, Any]]]) -> None:
        newest_first = keys(*jobs)[::-1]
        for limit, lengths in ((1, [2, 3, 1]), (2, [2, 3, 1]), (3, [5, 1]), (5, [5, 1]), (6, [6])):
            page = requests.get(f"{url}/image/generate", params={"limit": limit}, timeout=30)
            pages = [page.json()]
            while "next" in page.links:
                page = requests.get(url + page.links["next"]["url"], timeout=30)
                pages += [page.json()] if page.json() else []
            assert [len(each) for each in pages] == lengths
            assert keys(*pages) == newest_first

    def test_each_picture_has_an_address(self, url: str, jobs: list[list[dict[str, Any]]]) -> None:
        name = jobs[1][0]["uuid"]
        tags = set()
        for number, each in enumerate(jobs[1], 1):
            address = f"{url}/image/files/{name}-{number}.png"
            reply = requests.get(address, timeout=30)
            assert reply.content == base64.b64decode(each["data"])
            tag = reply.headers["ETag"]
            tags.add(tag)
            again = requests.get(address, headers={"If-None-Match": tag}, timeout=30)
            assert again.status_code == 304
        assert len(tags) == 3
        plain = requests.get(f"{url}/image/files/{name}.png", timeout=30)
        assert plain.content == base64.b64decode(jobs[1][0]["data"])
        for job, number in ((jobs[1], 4), (jobs[0], 2)):
            name = job[0]["uuid"]
            reply = requests.get(f"{url}/image/files/{name}-{number}.png", timeout=30)
            assert reply.status_code == 404
            sentence = f"the job {name} has no image {number}; it has {len(job)}"
            assert reply.json()["detail"] == sentence

    def test_a_deletion_takes_all_pictures(
        self, url: str, jobs: list[list[dict[str, Any]]]
    ) -> None:
        path, name = f"{url}/image/generate", jobs[1][0]["uuid"]
        query = {"generation_uuid": name}
        assert requests.delete(path, params=query, timeout=30).status_code == 204
        assert requests.get(path, params=query, timeout=30).json() == []
        assert keys(requests.get(path, timeout=30).json()) == keys(jobs[0], jobs[2])
        for number in (1, 2, 3):
            reply = requests.get(f"{url}/image/files/{name}-{number}.png", timeout=30)
            assert reply.status_code == 410
        assert requests.delete(path, params=query, timeout=30).status_code == 410

    def test_a_lost_picture_is_told_and_the_others_are_served(self, folder: Path) -> None:
        job = several(3, 1)
        opened(folder / "disk_backups").append_all(job)
        path = folder / "disk_backups" / NAME
        path.write_bytes(path.read_bytes().replace(encode(job[1]), b"#\n"))
        with running(folder, "gateway") as service:
            files = f"/image/files/{job[0]['uuid']}"
            assert [service.get(f"{files}-{n}.png").status_code for n in (1, 2, 3)] == [
                200,
                404,
                200,
            ]
            assert "is damaged on the disk" in service.get(f"{files}-2.png").json()["detail"]


class TestClient:
    def test_results_are_numbered(self, url: str, jobs: list[list[dict[str, Any]]]) -> None:
        with Client(url) as remote:
            found = list(remote.results(jobs[1][0]["uuid"]))
            assert [(each.image_index, each.num_images) for each in found] == [
                (0, 3),
                (1, 3),
                (2, 3),
            ]
            assert remote.wait(jobs[1][0]["uuid"]) == found
            assert [remote.image(found[0].uuid, n) for n in (1, 2, 3)] == [r.png for r in found]
            assert len(list(remote.results(limit=1))) == 2
            before = remote.results(before=jobs[2][0]["uuid"], data=False)
            assert [each.prompt for each in before] == ["three"] * 3 + ["one"]
            remote.delete(found[0].uuid)
            with pytest.raises(client_errors.Deleted):
                remote.image(found[0].uuid, 3)

    def test_the_command_saves_and_shows_all(
        self, url: str, jobs: list[list[dict[str, Any]]], tmp_path: Path
    ) -> None:
        name = jobs[1][0]["uuid"]
        done = sde(url, "save", name, "-o", str(tmp_path / "a.png"))
        assert done.returncode == 0, done.stderr
        paths = [tmp_path / f"a-{number}.png" for number in (1, 2, 3)]
        files = [line.split("\t")[0] for line in done.stdout.splitlines()]
        assert files == [str(path) for path in paths]
        assert [path.read_bytes() for path in paths] == [
            base64.b64decode(each["data"]) for each in jobs[1]
        ]
        assert sorted(tmp_path.iterdir()) == paths
        shown = json.loads(sde(url, "show", name, "--json").stdout)
        assert shown["prompt"] == "three" and shown["num_images"] == 3
        assert [(each["image_index"], each["seed"]) for each in shown["images"]] == [
            (0, 5),
            (1, 6),
            (2, 7),
        ]
        assert "seed 6, image_index 1" in sde(url, "show", name).stdout


def test_of_no_results_there_is_nothing_to_say() -> None:
    assert merged_fields([]) == {}
