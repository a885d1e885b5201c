"""Deletions leave the journal for a file of their own: remembered for good, and not in memory."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ResultDeleted, StorageUnavailable
from gateway.fsck import __main__
from gateway.jobs.broker import Broker
from gateway.jobs.deletion import ResultDeletion
from gateway.jobs.journal import Journal
from gateway.store import tombstones
from gateway.store.index_db import files
from gateway.store.index_file import INDEX_NAME
from gateway.store.input_store import InputStore
from gateway.store.result_index import ResultIndex
from gpu_worker.store.result_log import ResultLog
from tests.support.disk import Crash, FaultyDisk
from tests.support.gateway_parts import Begun, Parts
from tests.support.log_records import record, served


def submission(number: int) -> str:
    return f"{number:032x}:{'f' * 32}"


class Store:
    """The journal, the log and the index of a gateway, as its assembly puts them together."""

    def __init__(self, data: Path, compact_bytes: int = 600) -> None:
        self.file = data / "journal" / "deleted.jsonl"
        self.index = ResultIndex(data / "disk_backups", self.file)
        self.journal = Journal(data / "journal" / "jobs.jsonl", compact_bytes, self._bury)
        self.log = ResultLog(data / "disk_backups", "gpu-0", 2000)
        self.log.open()
        self.journal.open()
        self.index.open(self.journal.deleted)
        inputs = InputStore(data / "inputs")
        self.deletion = ResultDeletion(Broker(["gpu-0"], 0), self.journal, self.index, inputs)

    def _bury(self, deleted: dict[str, str | None]) -> None:
        tombstones.append(self.file, deleted)
        self.index.index_tombstones()

    def fill(self, count: int) -> list[dict[str, Any]]:
        records = [
            record(str(number), number) | {"submission": submission(number)}
            for number in range(count)
        ]
        for each in records:
            self.log.append(each)
            self.index.refresh(*self.log.position)
        return records

    def knows_deleted(self, each: dict[str, Any]) -> bool:
        """It is gone, is said to be deleted, and its key stands for it."""
        key, _, request = each["submission"].partition(":")
        made = self.journal.submissions.get(key)
        if made is None:
            uuid, given = self.index.find_submission(key) or ("", "")
            made = uuid, given.partition(":")[2]
        assert self.index.find_all(each["uuid"]) == [] and self.index.read(each["uuid"]) is None
        return self.index.is_deleted(each["uuid"]) and made == (each["uuid"], request)

    def close(self) -> None:
        self.index.close()


def test_a_compaction_moves_them_and_they_stay_known(tmp_path: Path) -> None:
    store = Store(tmp_path)
    records = store.fill(12)
    for each in records[:10]:
        assert store.deletion.delete(each["uuid"]) == 1
        assert store.knows_deleted(each)
    assert len(store.journal.deleted) < 5 and len(store.index._indexer.deleted) < 5
    assert (tmp_path / "journal" / "jobs.jsonl").stat().st_size < 1500
    for _ in range(2):
        store.close()
        store = Store(tmp_path)
        assert [line["uuid"] for line in served(store.index)] == [
            each["uuid"] for each in records[10:]
        ]
        assert all(map(store.knows_deleted, records[:10]))
        assert not store.index.is_deleted(records[11]["uuid"])
    store.close()
    assert __main__.main(["--data-dir", str(tmp_path)], {}) == 0


def test_the_gateway_itself_moves_them(tmp_path: Path) -> None:
    begun = Begun(tmp_path)
    begun.index.refresh(*begun.log.position)
    begun.journal._compact_bytes = 1
    begun.deletion.delete(begun.uuid)
    assert begun.journal.deleted == set()
    begun.index.close()
    assert begun.uuid in (tmp_path / "journal" / "deleted.jsonl").read_text()
    again = Parts(tmp_path)
    assert begun.uuid not in again.journal.pending
    with pytest.raises(ResultDeleted):
        again.view(begun.uuid)


def test_nothing_of_them_is_read_again_at_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, compact_bytes=40_000)
    store.journal.delete({f"00000000-0000-4000-8000-{n:012d}": None for n in range(3000)})
    store.close()
    assert store.file.read_bytes().count(b"\n") == 3000

    def refuse(*_: object) -> None:
        raise AssertionError("the file of deletions is read again")

    monkeypatch.setattr(tombstones, "read", refuse)
    again = Store(tmp_path)
    assert again.journal.deleted == again.index._indexer.deleted == set()
    assert again.index.is_deleted("00000000-0000-4000-8000-000000002999")
    assert not again.index.is_deleted("00000000-0000-4000-8000-000000003000")
    again.close()


@pytest.mark.parametrize("what", ["old", "none", "damaged"])
def test_an_index_that_has_lost_them_reads_them_again(tmp_path: Path, what: str) -> None:
    """A power cut, a copy that was put back, a file that is no index."""
    store = Store(tmp_path)
    records = store.fill(12)
    store.close()
    index = tmp_path / "disk_backups" / INDEX_NAME
    shutil.copy(index, tmp_path / "old")
    store = Store(tmp_path)
    for each in records[:10]:
        store.deletion.delete(each["uuid"])
    store.close()
    for part in files(index):
        part.unlink(missing_ok=True)
    if what == "old":
        shutil.copy(tmp_path / "old", index)
    if what == "damaged":
        index.write_bytes(b"no index" * 1000)
    again = Store(tmp_path)
    assert all(map(again.knows_deleted, records[:10]))
    assert [line["uuid"] for line in served(again.index)] == [each["uuid"] for each in records[10:]]
    again.close()


def test_an_index_that_is_newer_than_the_file_is_made_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    records = store.fill(3)
    store.close()
    shutil.copytree(tmp_path / "journal", tmp_path / "before")
    store = Store(tmp_path, compact_bytes=1)
    for each in records[:2]:
        store.deletion.delete(each["uuid"])
    assert [line["uuid"] for line in served(store.index)] == [records[2]["uuid"]]
    store.close()
    shutil.rmtree(tmp_path / "journal")
    shutil.copytree(tmp_path / "before", tmp_path / "journal")
    again = Store(tmp_path)
    assert [line["uuid"] for line in served(again.index)] == [each["uuid"] for each in records]
    again.close()


def test_fsck_mends_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path, compact_bytes=1)
    records = store.fill(4)
    for each in records[:3]:
        store.deletion.delete(each["uuid"])
    store.close()
    text = store.file.read_bytes()
    store.file.write_bytes(text.replace(records[1]["uuid"].encode(), b"x" * 36) + b'{"v":1,"ev')
    assert __main__.main(["--data-dir", str(tmp_path)], {}) == 1
    said = capsys.readouterr().out
    assert "deleted.jsonl at" in said and "torn tail" in said and "damaged line" in said
    assert __main__.main(["--fix", "--data-dir", str(tmp_path)], {}) == 0
    assert __main__.main(["--data-dir", str(tmp_path)], {}) == 0
    again = Store(tmp_path)
    assert again.knows_deleted(records[0]) and again.knows_deleted(records[2])
    again.close()


def test_fsck_knows_an_index_that_calls_deleted_what_was_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    (kept,) = store.fill(1)
    store.index.db.tombstones.add([(kept["uuid"], None)], 0)
    store.close()
    assert __main__.main(["--data-dir", str(tmp_path)], {}) == 1
    assert f"is wrong: {kept['uuid']} was never deleted" in capsys.readouterr().out
    assert __main__.main(["--fix", "--data-dir", str(tmp_path)], {}) == 0
    again = Store(tmp_path)
    assert [line["uuid"] for line in served(again.index)] == [kept["uuid"]]
    again.close()


@pytest.mark.parametrize("vice", ["error", "short", "before", "after"])
def test_no_failing_call_brings_a_deleted_result_back(tmp_path: Path, vice: str) -> None:
    """As in test_results.py: the 1st, 2nd ... Nth call fails, or is the death."""
    before = Store(tmp_path / "0")
    records = before.fill(8)
    before.close()
    for number in range(1, 500):
        data = tmp_path / str(number)
        shutil.copytree(tmp_path / "0", data)
        gone: list[dict[str, Any]] = []
        tried: list[str] = []
        store: Store | None = None
        with pytest.MonkeyPatch.context() as patch:
            disk = FaultyDisk(patch, number, vice)
            with contextlib.suppress(Crash, OSError):
                store = Store(data)
                for each in records[:6]:
                    tried.append(each["uuid"])
                    with contextlib.suppress(OSError, StorageUnavailable):
                        store.deletion.delete(each["uuid"])
                        gone.append(each)
            untouched = 0 <= disk.calls < number
        if store is not None:
            store.close()
        again = Store(data)
        assert all(map(again.knows_deleted, gone)), number
        left = {line["uuid"] for line in served(again.index)}
        assert left | set(tried) >= {each["uuid"] for each in records}, number
        assert left.isdisjoint(each["uuid"] for each in gone), number
        again.close()
        shutil.rmtree(data)
        if untouched:
            assert number > 20 and len(gone) == 6
            return
    raise AssertionError("the work never passed untouched")
