"""`sde fsck`: each fault made by hand in real files, found, mended, found no more; nothing lost."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from sde_client.commands.service import tools as command

from gateway.fsck import __main__
from gateway.jobs.journal import Journal
from gateway.store import consolidation, journal_event
from gateway.store.index_db import IndexDb
from gateway.store.result_index import ResultIndex
from gpu_worker.contract.job import Job, Outcome, result_record
from gpu_worker.contract.request import GenerationRequest
from gpu_worker.store import durable, process, segments
from gpu_worker.store.in_flight import InFlight, InFlightJob
from gpu_worker.store.record_line import encode
from gpu_worker.store.result_log import ResultLog
from tests.support.disk import Crash, FaultyDisk
from tests.support.service import ROOT, run_module, running

FIRST, NEWEST, OTHER = "gpu-0.00000001.jsonl", "gpu-0.00000002.jsonl", "gpu-1.00000001.jsonl"


def job(sequence: int, prompt: str = "a") -> Job:
    return Job(
        uuid=str(uuid.uuid4()),
        sequence=sequence,
        created_time="2026-01-01T00:00:00.000+00:00",
        request=GenerationRequest(prompt=prompt, seed=5),
    )


def record_of(given: Job, data: str) -> dict[str, Any]:
    return result_record(
        given, outcome=Outcome.SUCCEEDED, errors=[], data=data, metadata={"attempt": 1}
    )


def line_of(given: Job, data: str = "aGk=") -> bytes:
    return encode(record_of(given, data))


class Store:
    """Seven results: three and two in gpu-0's segments, two in gpu-1's; all accepted, indexed."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.folder = data / "disk_backups"
        self.journal = data / "journal" / "jobs.jsonl"
        self.jobs = [job(number, f"é {number}") for number in range(1, 8)]
        self.lines = [line_of(each, "x" * 100) for each in self.jobs]
        journal = Journal(self.journal)
        journal.open()
        for each in self.jobs:
            journal.accept(each)
        self.write(FIRST, *self.lines[:3])
        self.write(NEWEST, *self.lines[3:5])
        self.write(OTHER, *self.lines[5:])
        self.index()

    def copied(self, data: Path) -> Store:
        shutil.copytree(self.data, data)
        fresh = copy.copy(self)
        fresh.data, fresh.folder = data, data / "disk_backups"
        fresh.journal = data / "journal" / "jobs.jsonl"
        return fresh

    def write(self, name: str, *lines: bytes) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / name).write_bytes(b"".join(lines))

    def append(self, name: str, text: bytes) -> None:
        with open(self.folder / name, "ab") as file:
            file.write(text)

    def index(self) -> None:
        self.served()

    def served(self) -> list[str]:
        """The uuids that a gateway would serve, each read whole and checked."""
        journal = Journal(self.journal)
        journal.open()
        index = ResultIndex(self.folder)
        index.open(journal.deleted)
        try:
            found = [entry.uuid for entry in index.newest_first(1000)][::-1]
            for each in found:
                assert json.loads(index.read(each) or b"")["uuid"] == each
            assert index.query(IndexDb.totals).damaged_lines == 0
            return found
        finally:
            index.close()

    def uuids(self, *without: int) -> list[str]:
        return [each.uuid for number, each in enumerate(self.jobs) if number not in without]

    def accept(self, given: Job) -> None:
        journal = Journal(self.journal)
        journal.open()
        journal.accept(given)

    def delete(self, uuid: str) -> None:
        with open(self.journal, "ab") as file:
            file.write(journal_event.encode({"event": "deleted", "uuid": uuid, "submission": None}))

    def note(self, given: Job, gpu: int = 0) -> Path:
        InFlight(self.folder, f"gpu-{gpu}").write(InFlightJob(attempt=1, job=given))
        return self.folder / f"gpu-{gpu}.in_flight.{given.uuid}.json"

    def saved(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / "damaged").glob("*")}

    def snapshot(self) -> dict[str, tuple[int, bytes]]:
        """Every file with its time: what a check must leave as it was."""
        return {
            str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
            for path in self.data.rglob("*")
            if path.exists()
        }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


@pytest.fixture
def check(store: Store, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run it on the store: its exit code and what it said."""

    def run(*options: str) -> tuple[int, str]:
        before = store.snapshot()
        code = __main__.main([*options, "--data-dir", str(store.data)], {})
        if not options:
            assert store.snapshot() == before
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


Check = Callable[..., tuple[int, str]]


def faults(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("fault: ")]


def information(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("info: ")]


def assert_mended(check: Check, store: Store, *without: int) -> None:
    """--fix mends all, a second one has nothing to do, and the others are served as before."""
    code, said = check("--fix")
    assert code == 0 and "have been repaired" in said, said
    again = store.snapshot()
    for options in ((), ("--fix",)):
        code, said = check(*options)
        assert code == 0 and faults(said) == [] and "the store is sound" in said, said
    changed = {path for path, seen in store.snapshot().items() if again.get(path) != seen}
    assert all(path.endswith((".lock", "disk_backups", "run")) for path in changed)
    assert store.served() == store.uuids(*without)
    code, said = check()
    assert code == 0 and information(said) == [], said


def test_a_sound_store_is_sound(store: Store, check: Check) -> None:
    code, said = check()
    size = sum(map(len, store.lines))
    assert (code, faults(said), information(said)) == (0, [], [])
    assert f"7 results, {size} bytes in 3 segments" in said


def test_there_is_no_such_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in ([], ["--fix"]):
        assert __main__.main([*options, "--data-dir", str(tmp_path / "none")], {}) == 66
        assert "holds no store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


class TestLines:
    @pytest.mark.parametrize("name", [FIRST, NEWEST])
    def test_a_last_record_cut_anywhere_is_a_torn_tail(
        self, store: Store, check: Check, name: str
    ) -> None:
        sound = (store.folder / name).read_bytes()
        further = line_of(job(8))
        for length in (1, 9, 60, len(further) // 2, len(further) - 2, len(further) - 1):
            store.append(name, further[:length])
            code, said = check()
            assert code == 1
            (fault,) = faults(said)
            assert fault == (
                f"fault: disk_backups/{name} at {len(sound)}: torn tail: "
                f"{length} bytes of an incomplete line"
            )
            assert_mended(check, store)
            assert (store.folder / name).read_bytes() == sound
            assert further[:length] in store.saved().values()

    def test_a_file_that_is_one_torn_line(self, store: Store, check: Check) -> None:
        store.write("gpu-1.00000002.jsonl", b'{"uuid":"')
        assert check()[0] == 1
        assert_mended(check, store)
        assert (store.folder / "gpu-1.00000002.jsonl").read_bytes() == b""

    @pytest.mark.parametrize("number", range(7))
    def test_a_damaged_line_is_moved_aside(self, store: Store, check: Check, number: int) -> None:
        name = (FIRST, FIRST, FIRST, NEWEST, NEWEST, OTHER, OTHER)[number]
        damaged = bytearray(store.lines[number])
        damaged[70] ^= 1
        path = store.folder / name
        offset = path.read_bytes().index(store.lines[number])
        path.write_bytes(path.read_bytes().replace(store.lines[number], damaged))
        code, said = check()
        assert code == 1
        assert (
            f"{name} at {offset}: damaged line: {len(damaged)} bytes: the line does not match"
            in said
        )
        # The journal still knows that it was accepted: it waits, and the gateway runs it again.
        code, said = check("--fix")
        assert code == 0 and f"waiting job: {store.jobs[number].uuid}" in said
        assert store.saved() == {f"{name}.{offset}": bytes(damaged)}
        assert store.served() == store.uuids(number)
        assert check("--fix")[0] == check()[0] == 0

    @pytest.mark.parametrize("junk", [b"\n", b"\x00" * 5000 + b"\n", b"[]\n", b"\xff\xfe\n"])
    def test_junk_between_records(self, store: Store, check: Check, junk: bytes) -> None:
        store.write(FIRST, store.lines[0], junk, junk, store.lines[1], junk, store.lines[2], b"to")
        assert len([fault for fault in faults(check()[1]) if "damaged line" in fault]) == 3
        assert_mended(check, store)
        assert sorted(store.saved().values()) == sorted([junk, junk, junk, b"to"])

    def test_a_monstrous_line_is_moved_without_being_held(
        self, store: Store, check: Check, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gpu_worker.contract.output_size.MAX_LINE_BYTES", 1 << 20)
        with open(store.folder / FIRST, "r+b") as file:
            file.seek(sum(map(len, store.lines[:3])) + (5 << 20))
            file.write(b"\n")
        assert "is longer than 1048576 bytes" in check()[1]
        assert_mended(check, store)
        assert [len(content) for content in store.saved().values()] == [(5 << 20) + 1]

    def test_two_damages_at_one_offset_are_both_kept(self, store: Store, check: Check) -> None:
        for junk in (b"one\n", b"two\n"):
            store.write(FIRST, junk, *store.lines[:3])
            assert_mended(check, store)
        assert store.saved() == {f"{FIRST}.0": b"one\n", f"{FIRST}.0.1": b"two\n"}

    def test_another_versions_line_is_left_alone(self, store: Store, check: Check) -> None:
        foreign = durable.with_checksum(store.lines[0][:-18].replace(b'"format":1', b'"format":2'))
        store.write("gpu-1.00000002.jsonl", foreign)
        for options in ((), ("--fix",)):
            code, said = check(*options)
            assert code == 0 and "line of another version" in said and "format 1" in said
        assert (store.folder / "gpu-1.00000002.jsonl").read_bytes() == foreign

    @pytest.mark.parametrize("name", [FIRST, NEWEST, OTHER])
    def test_of_a_double_the_first_counts(self, store: Store, check: Check, name: str) -> None:
        again = line_of(store.jobs[0], "yyyy")
        offset = (store.folder / name).stat().st_size
        store.append(name, again)
        code, said = check()
        assert code == 1
        (fault,) = faults(said)
        assert fault.endswith(
            f"{name} at {offset}: doubled result: {store.jobs[0].uuid} is in {FIRST} at 0 already"
        )
        assert_mended(check, store)
        assert (store.folder / FIRST).read_bytes().startswith(store.lines[0])
        assert store.saved() == {f"{name}.{offset}": again}

    def test_a_deleted_double_is_not_kept(self, store: Store, check: Check) -> None:
        store.append(OTHER, store.lines[0])
        store.delete(store.jobs[0].uuid)
        code, _ = check("--fix")
        assert code == 0 and store.saved() == {}
        assert store.served() == store.uuids(0)

    def test_what_cannot_be_mended_is_said(self, store: Store, check: Check) -> None:
        (store.folder / "gpu-2.00000001.jsonl").symlink_to(store.folder / FIRST)
        os.mkfifo(store.folder / "gpu-3.00000001.jsonl")
        code, said = check("--fix")
        assert code == 1
        assert "2 faults remain" in said and "make the unreadable files readable" in said
        assert "is not a regular file" in said
        assert {fault.split(":")[1] for fault in faults(said)} == {
            " disk_backups/gpu-2.00000001.jsonl",
            " disk_backups/gpu-3.00000001.jsonl",
        }


def lines_of(given: Job, count: int) -> list[bytes]:
    """The records of a job of several pictures."""
    return [
        encode(record_of(given, "z" * 40) | {"image_index": number, "num_images": count})
        for number in range(count)
    ]


class TestSeveralPictures:
    def grown(self, store: Store, name: str, count: int = 3) -> tuple[Job, list[bytes]]:
        """One more job, accepted; its lines are not written yet."""
        further = job(8 if name != OTHER else 9)
        store.accept(further)
        return further, lines_of(further, count)

    @pytest.mark.parametrize("name", [FIRST, NEWEST, OTHER])
    def test_a_whole_one_is_sound(self, store: Store, check: Check, name: str) -> None:
        further, lines = self.grown(store, name)
        store.append(name, b"".join(lines))
        index = store.folder / "index.sqlite"
        index.unlink()
        assert store.served().count(further.uuid) == 3
        code, said = check()
        assert code == 0 and "10 results" in said and information(said) == [], said

    @pytest.mark.parametrize("there", [1, 2])
    @pytest.mark.parametrize("torn", [0, 50])
    def test_an_unfinished_one_at_the_end_is_torn(
        self, store: Store, check: Check, there: int, torn: int
    ) -> None:
        further, lines = self.grown(store, NEWEST)
        note = store.note(further)
        sound = (store.folder / NEWEST).read_bytes()
        store.append(NEWEST, b"".join(lines[:there]) + lines[there][:torn])
        code, said = check()
        assert code == 1
        assert (
            f"fault: disk_backups/{NEWEST} at {len(sound)}: torn tail: {there} of the 3 records of "
            f"{further.uuid} without the others"
        ) in faults(said)
        assert len(faults(said)) == 1 + bool(torn)
        code, said = check("--fix")
        assert code == 0 and f"waiting job: {further.uuid}" in said
        assert (store.folder / NEWEST).read_bytes() == sound and note.exists()
        kept = [*lines[:there], *([lines[there][:torn]] if torn else [])]
        assert sorted(store.saved().values()) == sorted(kept)
        assert store.served() == store.uuids()
        assert check("--fix")[0] == check()[0] == 0

    def test_of_a_live_writer_it_is_information(self, store: Store, check: Check) -> None:
        further, lines = self.grown(store, NEWEST)
        store.append(NEWEST, lines[0] + lines[1][:9])
        (store.folder / "gpu-0.lock").touch()
        store.index()
        with process.lock(store.folder / "gpu-0.lock", "the store"):
            code, said = check()
        assert code == 0 and f"1 of the 3 records of {further.uuid}: gpu-0 is appending" in said
        assert "stale" not in said  # the index has left out the same

    @pytest.mark.parametrize("name", [FIRST, OTHER])
    def test_an_incomplete_one_with_others_behind_it_cannot_be_mended(
        self, store: Store, check: Check, name: str
    ) -> None:
        further, lines = self.grown(store, name)
        offset = (store.folder / name).stat().st_size
        store.append(name, b"".join(lines[:2]))
        if name == OTHER:
            last = job(10)
            store.append(name, line_of(last))
        (store.folder / "index.sqlite").unlink()
        said_of_it = (
            f"fault: disk_backups/{name} at {offset}: incomplete result: 2 of the 3 records of "
            f"{further.uuid} exist; the others are lost"
        )
        before = (store.folder / name).read_bytes()
        code, said = check()
        assert code == 1 and faults(said) == [said_of_it]
        assert "delete it: sde delete" in said and "--fix" not in said
        code, said = check("--fix")
        assert code == 1 and faults(said) == [said_of_it]
        assert "1 faults remain" in said and "delete it: sde delete" in said
        assert (
            "repaired" not in said.replace("cannot be repaired", "")
            and (store.folder / name).read_bytes() == before
        )
        assert store.served().count(further.uuid) == 2
        store.delete(further.uuid)
        assert check("--fix")[0] == check()[0] == 0

    @pytest.mark.parametrize("number", [0, 1, 2])
    @pytest.mark.parametrize("name", [FIRST, NEWEST])
    def test_damage_in_one_leaves_the_others_for_good(
        self, store: Store, check: Check, name: str, number: int
    ) -> None:
        """Also when it is the last line: what is left must not be taken for a crash's."""
        further, lines = self.grown(store, name)
        note = store.note(further)
        damaged = [bytearray(line) for line in lines]
        damaged[number][70] ^= 1
        store.append(name, b"".join(damaged))
        left = [line for at, line in enumerate(lines) if at != number]
        for _ in range(2):
            code, said = check("--fix")
            (left_over,) = faults(said.rpartition("checked again")[2])
            assert code == 1 and ": incomplete result: 2 of the 3 records of" in left_over
        assert list(store.saved().values()) == [bytes(damaged[number])]
        assert (store.folder / name).read_bytes().endswith(b"".join(left))
        worker = ResultLog(store.folder, "gpu-0")
        worker.open()
        # Either the outcome is the log's newest, or nothing asks the worker to make it again.
        assert worker.ends_with(further.uuid) or not note.exists()
        worker.append(record_of(job(11), "aGk="))
        worker.close()
        assert (store.folder / name).read_bytes().find(b"".join(left)) > 0
        assert store.served().count(further.uuid) == 2

    @pytest.mark.parametrize("vice", ["error", "before", "after"])
    def test_a_mending_that_dies_leaves_them_too(
        self, tmp_path: Path, vice: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        template = Store(tmp_path / "template")
        further, lines = self.grown(template, NEWEST)
        template.append(NEWEST, b"".join((*lines[:2], lines[2].replace(b"zz", b"yy", 1))))
        for number in range(1, 100):
            store = template.copied(tmp_path / str(number))
            arguments = ["--fix", "--data-dir", str(store.data)]
            with pytest.MonkeyPatch.context() as patch:
                disk = FaultyDisk(patch, number, vice)
                with contextlib.suppress(Crash):
                    assert __main__.main(arguments, {}) in (1, 74)
                untouched = 0 <= disk.calls < number
            # The service comes before the next mending.
            with contextlib.closing(ResultLog(store.folder, "gpu-0")) as worker:
                worker.open()
            assert __main__.main(arguments, {}) == 1, capsys.readouterr().out
            assert store.served().count(further.uuid) == 2, number
            if untouched:
                assert number > 20
                return
        raise AssertionError("it never passed untouched")

    def test_a_doubled_one_is_taken_out_line_by_line(self, store: Store, check: Check) -> None:
        further, lines = self.grown(store, FIRST)
        store.append(FIRST, b"".join(lines))
        store.append(OTHER, b"".join(lines))
        code, said = check()
        assert code == 1 and len([f for f in faults(said) if "doubled result" in f]) == 3
        assert check("--fix")[0] == 0
        assert store.served().count(further.uuid) == 3
        assert (store.folder / OTHER).read_bytes() == b"".join(store.lines[5:])

    def test_a_second_outcome_of_another_kind_is_a_double(self, store: Store, check: Check) -> None:
        further, lines = self.grown(store, FIRST)
        store.append(FIRST, line_of(further))
        store.append(OTHER, b"".join(lines))
        code, said = check()
        assert code == 1 and len([f for f in faults(said) if "doubled result" in f]) == 3
        assert check("--fix")[0] == 0 and store.served().count(further.uuid) == 1

    @pytest.mark.parametrize(
        ("sql", "word"),
        [
            ("UPDATE results SET offset = offset + 1 WHERE image_index = 2", "is wrong"),
            ("UPDATE results SET num_images = 4 WHERE image_index = 2", "is wrong"),
            ("DELETE FROM results WHERE image_index = 1", "lacks"),
        ],
    )
    def test_an_index_wrong_in_one_of_them_is_removed(
        self, store: Store, check: Check, sql: str, word: str
    ) -> None:
        further, lines = self.grown(store, OTHER)
        store.append(OTHER, b"".join(lines))
        store.index()
        with contextlib.closing(sqlite3.connect(store.folder / "index.sqlite")) as db, db:
            db.execute(sql)
        code, said = check()
        assert code == 1 and any(word in fault for fault in faults(said)), said
        assert check("--fix")[0] == 0
        assert store.served().count(further.uuid) == 3 and check()[0] == 0

    def test_the_only_copy_of_one_picture_is_kept(self, store: Store, check: Check) -> None:
        _, lines = self.grown(store, FIRST)
        store.append(FIRST, b"".join(lines))
        store.write("gpu-0.00000001-00000002.jsonl", *store.lines[:5], *lines[:2])
        store.write("gpu-0.00000003.jsonl")
        code, said = check()
        assert code == 1 and "1 of its results are in no other segment" in said
        assert check("--fix")[0] == 1  # what is aside counts no more
        assert store.saved()[FIRST] == b"".join((*store.lines[:3], *lines))


class TestFiles:
    def test_a_replaced_segment_is_removed(self, store: Store, check: Check) -> None:
        store.write("gpu-0.00000001-00000002.jsonl", *store.lines[:5])
        store.write("gpu-0.00000003.jsonl")
        code, said = check()
        assert code == 1
        assert len([fault for fault in faults(said) if "replaced segment" in fault]) == 2
        assert_mended(check, store)
        assert not (store.folder / FIRST).exists() and store.saved() == {}

    def test_a_replaced_segment_with_the_only_copy_is_kept(
        self, store: Store, check: Check
    ) -> None:
        store.write("gpu-0.00000001-00000002.jsonl", *store.lines[:3])
        store.delete(store.jobs[3].uuid)
        code, said = check()
        assert "1 of its results are in no other segment" in said and code == 1
        code, _ = check("--fix")
        assert code == 0
        assert store.saved() == {NEWEST: b"".join(store.lines[3:5])}
        assert store.served() == store.uuids(3, 4)

    def test_half_written_files_are_removed(self, store: Store, check: Check) -> None:
        (store.folder / "damaged").mkdir()
        halves = [
            store.folder / "gpu-0.00000001-00000002.jsonl.tmp",
            store.folder / "gpu-1.in_flight.json.tmp",
            store.folder / "damaged" / "gpu-0.00000001.jsonl.0.tmp",
            store.journal.with_name("jobs.jsonl.tmp"),
        ]
        for half in halves:
            half.write_bytes(b"half")
        (store.folder / "somebody.else").write_bytes(b"x")
        code, said = check()
        assert code == 1 and len(faults(said)) == 4
        assert_mended(check, store)
        assert not any(half.exists() for half in halves)
        assert (store.folder / "somebody.else").exists()


class TestIndex:
    def test_none_and_one_that_is_behind_are_the_gateways_to_mend(
        self, store: Store, check: Check
    ) -> None:
        further = job(8)
        store.accept(further)
        store.append(OTHER, line_of(further))
        code, said = check()
        assert code == 0 and "stale: " + OTHER in said
        for path in store.folder.glob("index.sqlite*"):
            path.unlink()
        code, said = check()
        assert code == 0 and "missing file: is missing" in said
        (store.folder / "index.sqlite").touch()
        code, said = check()
        assert code == 0 and "is empty" in said
        assert store.served() == [*store.uuids(), further.uuid]

    @pytest.mark.parametrize("vice", ["junk", "torn", "flipped", "version", "half", "wal"])
    def test_a_damaged_one_is_removed(self, store: Store, check: Check, vice: str) -> None:
        path = store.folder / "index.sqlite"
        good = path.read_bytes()
        if vice == "junk":
            path.write_bytes(b"junk" * 4096)
        elif vice == "torn":
            path.write_bytes(good[: len(good) // 2])
        elif vice == "flipped":
            at = good.index(store.jobs[3].uuid.encode())
            path.write_bytes(good[: at - 20] + b"\xff" * 60 + good[at + 40 :])
        elif vice == "version":
            with contextlib.closing(sqlite3.connect(path)) as db:
                db.execute("PRAGMA user_version = 999")
        elif vice == "half":
            # The gateway died while it made the tables.
            path.unlink()
            with contextlib.closing(sqlite3.connect(path)) as db:
                db.execute("CREATE TABLE results (uuid TEXT)")
        else:
            path.rename(path.with_name("index.sqlite-wal"))
        code, said = check()
        assert code == 1 and all(": index: " in fault for fault in faults(said)), said
        assert_mended(check, store)

    @pytest.mark.parametrize(
        ("sql", "word"),
        [
            ("UPDATE results SET offset = offset + 1 WHERE offset > 0", "is wrong"),
            ("UPDATE results SET segment = 'gpu-9.00000001.jsonl' WHERE offset = 0", "is wrong"),
            ("DELETE FROM results WHERE offset > 0", "lacks"),
        ],
    )
    def test_one_that_misleads_is_removed(
        self, store: Store, check: Check, sql: str, word: str
    ) -> None:
        with contextlib.closing(sqlite3.connect(store.folder / "index.sqlite")) as db, db:
            db.execute(sql)
        code, said = check()
        assert code == 1 and any(word in fault for fault in faults(said)), said
        assert_mended(check, store)

    def test_what_a_killed_gateway_left_in_the_write_ahead_log_is_seen(
        self, store: Store, check: Check
    ) -> None:
        script = (
            "import os, sys; from pathlib import Path\n"
            "from gateway.store.result_index import ResultIndex\n"
            "index = ResultIndex(Path(sys.argv[1])); index.open(); index.delete(sys.argv[2])\n"
            "os._exit(0)"
        )
        gone = store.jobs[0].uuid
        subprocess.run([sys.executable, "-c", script, store.folder, gone], cwd=ROOT, check=True)
        assert (store.folder / "index.sqlite-wal").stat().st_size
        code, said = check()
        assert code == 1 and f"lacks {gone}" in said
        assert_mended(check, store)


class TestJournal:
    def test_a_torn_tail(self, store: Store, check: Check) -> None:
        sound = store.journal.read_bytes()
        for length in (1, 20, 200):
            store.journal.write_bytes(sound + sound[:length])
            code, said = check()
            assert code == 1 and f"journal/jobs.jsonl at {len(sound)}: torn tail" in said
            assert_mended(check, store)
            assert store.journal.read_bytes() == sound

    def test_a_damaged_line(self, store: Store, check: Check) -> None:
        sound = store.journal.read_bytes()
        lines = sound.splitlines(keepends=True)
        store.journal.write_bytes(lines[0] + b"{}\n" + b"".join(lines[1:]))
        code, said = check()
        assert code == 1 and f"journal/jobs.jsonl at {len(lines[0])}: damaged line" in said
        assert_mended(check, store)
        assert store.journal.read_bytes() == sound
        assert store.saved() == {f"jobs.jsonl.{len(lines[0])}": b"{}\n"}

    def test_a_waiting_job_and_a_deleted_result_are_no_faults(
        self, store: Store, check: Check
    ) -> None:
        waits = job(8)
        store.accept(waits)
        store.delete(store.jobs[5].uuid)
        code, said = check()
        assert code == 0 and "6 results" in said
        assert any(f"waiting job: {waits.uuid}" in line for line in information(said))
        leaves = f"{OTHER} at 0: deleted result: {store.jobs[5].uuid} is removed"
        assert any(leaves in line for line in information(said))

    def test_another_versions_event_is_left_alone(self, store: Store, check: Check) -> None:
        with open(store.journal, "ab") as file:
            file.write(durable.with_checksum(b'{"v":2,"event":"accepted","job":{}'))
            file.write(durable.with_checksum(b'{"nonsense'))
        before = store.journal.read_bytes()
        code, said = check("--fix")
        assert code == 0 and "2 x line of another version" in said
        assert store.journal.read_bytes() == before

    def test_no_journal(self, store: Store, check: Check) -> None:
        store.journal.unlink()
        note = store.note(job(8))
        code, said = check("--fix")
        assert code == 0 and "is missing; the waiting jobs" in said and note.exists()


class TestNotes:
    def test_of_the_newest_record_and_of_an_accepted_job_they_are_sound(
        self, store: Store, check: Check
    ) -> None:
        waits = job(8)
        store.accept(waits)
        notes = [store.note(store.jobs[4]), store.note(waits, 1)]
        code, said = check("--fix")
        assert code == 0 and faults(said) == [] and all(note.exists() for note in notes)

    def test_of_the_newest_record_also_when_it_is_deleted_or_the_journal_has_forgotten_it(
        self, store: Store, check: Check
    ) -> None:
        note = store.note(store.jobs[4])
        store.delete(store.jobs[4].uuid)
        assert check("--fix")[0] == 0 and note.exists()
        journal = Journal(store.journal, compact_bytes=1)
        journal.open()
        journal.end(store.jobs[6].uuid)
        journal.accept(job(8))
        assert store.jobs[6].uuid.encode() not in store.journal.read_bytes()
        other = store.note(store.jobs[6], 1)
        assert check("--fix")[0] == 0 and note.exists() and other.exists()

    def test_an_unreadable_one(self, store: Store, check: Check) -> None:
        note = store.folder / f"gpu-0.in_flight.{store.jobs[0].uuid}.json"
        for junk in (b"", b"{", b"\xff\xfe", b'{"attempt":1}'):
            note.write_bytes(junk)
            code, said = check()
            assert code == 1 and "orphaned note: unreadable" in said
            assert_mended(check, store)
            assert not note.exists() and junk in store.saved().values()

    def test_of_a_job_never_accepted(self, store: Store, check: Check) -> None:
        stranger = job(99)
        note = store.note(stranger)
        text = note.read_bytes()
        code, said = check()
        assert code == 1 and f"{stranger.uuid} was never accepted" in said
        assert_mended(check, store)
        assert store.saved() == {note.name: text}

    def test_of_a_job_whose_acceptance_may_be_what_is_damaged(
        self, store: Store, check: Check
    ) -> None:
        note = store.note(job(99))
        store.journal.write_bytes(store.journal.read_bytes() + b"damaged\n")
        for _ in range(2):
            assert check("--fix")[0] == 0 and note.exists()

    def test_of_a_deleted_job(self, store: Store, check: Check) -> None:
        gone = job(8)
        store.accept(gone)
        store.delete(gone.uuid)
        store.note(gone)
        code, said = check()
        assert code == 1 and f"{gone.uuid} is deleted" in said
        assert_mended(check, store)
        assert store.saved() == {}

    def test_of_a_job_that_ended_elsewhere(self, store: Store, check: Check) -> None:
        store.note(store.jobs[0], 1)
        code, said = check()
        assert code == 1 and "has an outcome and would run again" in said
        assert_mended(check, store)

    def test_of_a_doubled_last_record_it_goes_with_it(self, store: Store, check: Check) -> None:
        store.append(OTHER, store.lines[0])
        note = store.note(store.jobs[0], 1)
        assert len(faults(check()[1])) == 1
        assert_mended(check, store)
        assert not note.exists()


def everything_wrong(store: Store) -> None:
    """All that can be, at a time."""
    junk = b"junk\n"
    store.write(FIRST, store.lines[0], junk, *store.lines[1:3], store.lines[5])
    store.write("gpu-1.00000001-00000002.jsonl", *store.lines[5:])
    store.write("gpu-1.00000003.jsonl.tmp", b"half")
    store.append(NEWEST, store.lines[0][:50])
    (store.folder / "index.sqlite").write_bytes(b"junk" * 999)
    (store.folder / f"gpu-1.in_flight.{uuid.uuid4()}.json").write_bytes(b"{")
    store.journal.write_bytes(b"junk\n" + store.journal.read_bytes() + b"torn")


@pytest.mark.parametrize("vice", ["error", "short", "before", "after"])
def test_a_mending_that_dies_anywhere_is_finished_by_the_next(
    tmp_path: Path, vice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Let the 1st, 2nd ... Nth call fail, or be the last, until it passes untouched."""
    template = Store(tmp_path / "template")
    everything_wrong(template)
    for number in range(1, 500):
        store = template.copied(tmp_path / str(number))
        arguments = ["--fix", "--data-dir", str(store.data)]
        (tmp_path / "scratch").mkdir(exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
            disk = FaultyDisk(patch, number, vice)
            with contextlib.suppress(Crash):
                assert __main__.main(arguments, {}) in (0, 1, 74)
            untouched = 0 <= disk.calls < number
        assert __main__.main(arguments, {}) == 0, capsys.readouterr().out
        assert __main__.main(arguments[1:], {}) == 0
        assert store.served() == store.uuids(), number
        kept = sorted(store.saved().values())
        assert kept == sorted(
            [store.lines[0][:50], b"junk\n", b"junk\n", b"torn", store.lines[5], b"{"]
        )
        shutil.rmtree(store.data)
        capsys.readouterr()
        if untouched:
            assert number > 30
            return
    raise AssertionError("it never passed untouched")


def sde_fsck(data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run_module(data, "gateway.fsck", *options)


class TestBesideAService:
    def test_a_check_may_run_and_a_mending_may_not(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker") as service:
            uuids = [service.submit()]
            service.result(uuids[0])
            service.wait_available()
            results = folder / "disk_backups"
            with open(results / FIRST, "ab") as file:
                file.write(b'{"uuid":"')
            (results / "gpu-0.00000001-00000002.jsonl.tmp").write_bytes(b"half")
            done = sde_fsck(folder)
            assert done.returncode == 0, done.stdout
            assert "torn tail: 9 bytes: gpu-0 is appending a line" in done.stdout
            assert "left-over file: gateway is writing it" in done.stdout
            assert "index: not compared, because the gateway is writing it" in done.stdout
            assert "1 results" in done.stdout and faults(done.stdout) == []
            for name, what in (("gateway", "the gateway's lock"), ("gpu_worker", "the result")):
                done = sde_fsck(folder, "--fix")
                assert done.returncode == 75 and f"stop the service first: {what}" in done.stderr
                assert f"held by process {service.children[name].pid}" in done.stderr
                service.kill(name, signal.SIGTERM)
            done = sde_fsck(folder)
            assert done.returncode == 1 and len(faults(done.stdout)) == 2
            done = sde_fsck(folder, "--fix")
            assert done.returncode == 0, done.stdout + done.stderr
            service.start("gpu_worker")
            service.start("gateway")
            service.wait_available()
            assert service.result(uuids[0])["errors"] == []
            service.result(service.submit())
            assert len(service.lines()) == 2

    def test_what_a_real_service_leaves_is_sound(self, folder: Path) -> None:
        with running(folder, "gateway", "gpu_worker", SDE_QUEUE_SIZE="9") as service:
            uuids = [service.submit() for _ in range(4)]
            done = sde_fsck(folder)  # while they run
            assert done.returncode == 0, done.stdout
            for each in uuids:
                service.result(each)
        done = sde_fsck(folder, "--fix")
        assert done.returncode == 0 and faults(done.stdout) == [], done.stdout
        assert "4 results" in done.stdout

    def test_one_mending_at_a_time(self, store: Store, check: Check) -> None:
        (store.data / "run").mkdir()
        with process.lock(store.data / "run" / "gateway.lock", "it"):
            code, said = check("--fix")
            assert code == 75 and "stop the service first" in said

    def test_a_check_makes_no_lock_file(self, store: Store, check: Check) -> None:
        assert check()[0] == 0
        assert not list(store.data.rglob("*.lock"))


def test_a_merge_and_a_full_log_are_sound(store: Store, check: Check) -> None:
    log = ResultLog(store.folder, "gpu-0", 600)
    log.open()
    for number in range(8, 16):
        further = job(number)
        store.accept(further)
        store.jobs.append(further)
        log.append(record_of(further, "x" * 100))
    log.close()
    index = ResultIndex(store.folder)
    index.open()
    for run in list(consolidation.runs(index, 1 << 20)):
        consolidation.merge(index, run)
    index.close()
    assert any(found.first != found.last for found in segments.live_segments(store.folder))
    code, said = check()
    assert (code, faults(said), information(said)) == (0, [], []), said


def test_the_data_folder_is_the_settings(store: Store) -> None:
    done = sde_fsck(store.data)
    assert done.returncode == 0 and "7 results" in done.stdout
    done = sde_fsck(Path("/nonexistent"), "--data-dir", str(store.data))
    assert done.returncode == 0 and "7 results" in done.stdout


def test_nobody_reads_to_the_end(store: Store) -> None:
    store.write("gpu-1.00000002.jsonl", b"junk\n" * 5000)
    with subprocess.Popen(
        [sys.executable, "-m", "gateway.fsck", "--data-dir", str(store.data)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == b"" and child.wait(30) == 1


class TestCommand:
    def sde(self, *arguments: str) -> int:
        app = typer.Typer()
        app.callback()(lambda: None)
        command.register(app)
        with pytest.raises(SystemExit) as left:
            app(list(arguments))
        return int(left.value.code or 0)

    def test_it_hands_over_and_passes_the_exit_code_on(
        self, store: Store, capfd: pytest.CaptureFixture[str]
    ) -> None:
        given = ("--data-dir", str(store.data))
        assert self.sde("fsck", *given) == 0
        store.append(NEWEST, b"torn")
        assert self.sde("fsck", *given) == 1
        assert self.sde("fsck", "--fix", *given) == 0
        assert self.sde("fsck", *given) == 0
        assert self.sde("fsck", "--data-dir", str(store.data / "none")) == 66
        said = capfd.readouterr()
        assert "torn tail: 4 bytes" in said.out and "holds no store" in said.err

    def test_without_the_server_it_says_where_to_run_it(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(command, "SERVER_PACKAGES", ("a_package_that_nobody_has",))
        assert self.sde("fsck") == 69
        assert "fsck needs the server's packages" in capsys.readouterr().err
