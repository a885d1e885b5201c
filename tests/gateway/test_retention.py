"""Retention and consolidation as the gateway does them, on real files; the clock is set by hand."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.errors import StorageUnavailable
from gateway.jobs.broker import Broker
from gateway.jobs.deletion import ResultDeletion
from gateway.jobs.journal import Journal
from gateway.jobs.retention import Housekeeping, Retention
from gateway.store import consolidation
from gateway.store.input_store import InputStore
from gateway.store.result_index import ResultIndex
from gateway.store.retention_clock import RetentionClock
from gpu_worker.store.result_log import ResultLog
from tests.support.log_records import record

DAY_ONE = datetime(2026, 1, 1, tzinfo=UTC)


class Store:
    """Ten results, one a day, in segments of about three."""

    def __init__(self, folder: Path, retention: Retention, now: datetime) -> None:
        self.folder = folder / "disk_backups"
        log = ResultLog(self.folder, "gpu-0", 1000)
        self.records = [
            record(str(day), day, data="x" * 100)
            | {"created_time": (DAY_ONE + timedelta(days=day)).isoformat()}
            for day in range(10)
        ]
        for each in self.records:
            log.append(each)
        self.journal = Journal(folder / "journal" / "jobs.jsonl")
        self.journal.open()
        self.index = ResultIndex(self.folder)
        self.index.open()
        self.deletion = ResultDeletion(
            Broker(["gpu-0"], 0), self.journal, self.index, InputStore(folder / "inputs")
        )
        self.rotated: list[str] = []
        self.housekeeping = Housekeeping(
            self.index, self.deletion, retention, 1 << 20, self.rotated.append, lambda: now
        )

    def left(self) -> list[int]:
        return [entry.sequence for entry in self.index.oldest_first()]

    def text(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob("*.jsonl"))


def line_bytes(store: Store) -> int:
    return next(iter(store.index.oldest_first())).length


NOON_OF_DAY_10 = DAY_ONE + timedelta(days=9, hours=12)


@pytest.mark.parametrize(
    ("retention", "left"),
    [
        (Retention(), list(range(10))),
        (Retention(days=3), [7, 8, 9]),
        (Retention(results=4), [6, 7, 8, 9]),
        (Retention(days=3, results=2), [8, 9]),
        (Retention(days=300, results=40, size_bytes=1 << 30), list(range(10))),
    ],
)
def test_what_is_beyond_the_retention_goes(
    tmp_path: Path, retention: Retention, left: list[int]
) -> None:
    store = Store(tmp_path, retention, NOON_OF_DAY_10)
    store.housekeeping.run_once()
    assert store.left() == left
    store.housekeeping.run_once()
    assert store.left() == left
    assert store.journal.deleted == {store.records[n]["uuid"] for n in range(10) if n not in left}


def test_the_newest_so_many_bytes_are_kept(tmp_path: Path) -> None:
    size = line_bytes(Store(tmp_path / "a", Retention(), NOON_OF_DAY_10))
    store = Store(tmp_path / "b", Retention(size_bytes=size * 5 + 1), NOON_OF_DAY_10)
    store.housekeeping.run_once()
    assert store.left() == [5, 6, 7, 8, 9]


def test_a_clock_that_is_set_back_deletes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path, Retention(days=3), DAY_ONE - timedelta(days=365))
    store.housekeeping.run_once()
    assert store.left() == list(range(10))


def test_one_deleted_result_leaves_the_disk_with_the_next_round(tmp_path: Path) -> None:
    store = Store(tmp_path, Retention(), NOON_OF_DAY_10)
    store.housekeeping.run_once()  # merges the small ones
    gone = store.records[1]["uuid"]
    assert store.deletion.delete(gone) == 1 and gone in store.text()
    store.housekeeping.run_once()
    assert gone not in store.text()
    assert store.left() == [0, *range(2, 10)]


def test_a_deletion_in_the_newest_segment_has_its_writer_leave_it(tmp_path: Path) -> None:
    store = Store(tmp_path, Retention(), NOON_OF_DAY_10)
    store.deletion.delete(store.records[9]["uuid"])
    assert store.housekeeping.run_once() is True
    (asked,) = store.rotated
    writer = ResultLog(store.folder, "gpu-0")
    writer.open()
    assert writer.position[0] == asked
    writer.rotate()
    store.housekeeping.run_once()
    assert store.records[9]["uuid"] not in store.text()
    assert store.left() == list(range(9))


def _refuses(error: Exception) -> Callable[..., None]:
    def refuses(*_: object, **__: object) -> None:
        raise error

    return refuses


@pytest.mark.parametrize(
    "error", [OSError(28, "full"), sqlite3.OperationalError("full"), KeyError()]
)
@pytest.mark.parametrize("place", [(RetentionClock, "read"), (ResultDeletion, "delete")])
def test_a_step_that_fails_stops_no_other_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, place: tuple[type, str]
) -> None:
    """On a full disk a merge makes room, and so does the deletion by number."""
    store = Store(tmp_path, Retention(days=3, results=4), NOON_OF_DAY_10)
    count = len(list(store.folder.glob("*.jsonl")))
    with monkeypatch.context() as patched:
        patched.setattr(*place, _refuses(error))
        store.housekeeping.run_once()
    by_number = place[1] == "read"
    assert store.left() == ([6, 7, 8, 9] if by_number else list(range(10)))
    assert len(list(store.folder.glob("*.jsonl"))) < count, "segments are merged"


@pytest.mark.parametrize("error", [OSError(28, "full"), StorageUnavailable("full"), KeyError()])
def test_a_trash_that_cannot_be_emptied_stops_no_other_step(
    tmp_path: Path, error: Exception
) -> None:
    store = Store(tmp_path, Retention(results=4), NOON_OF_DAY_10)
    store.housekeeping._empty_trash = _refuses(error)
    store.housekeeping.run_once()
    assert store.left() == [6, 7, 8, 9]


@pytest.mark.parametrize("error", [OSError(5), RuntimeError()])
def test_a_rotation_that_fails_stops_no_other_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    store = Store(tmp_path, Retention(), NOON_OF_DAY_10)
    monkeypatch.setattr(Housekeeping, "_mostly_garbage", lambda _: iter(("a", "b")))

    def rotate(name: str) -> None:
        store.rotated.append(name)
        raise error

    store.housekeeping._rotate = rotate
    assert store.housekeeping.run_once() is True
    assert sorted(store.rotated) == ["a", "b"]


def test_a_merge_that_cannot_begin_stops_no_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, Retention(), NOON_OF_DAY_10)
    monkeypatch.setattr(consolidation, "runs", _refuses(OSError(5)))
    monkeypatch.setattr(Housekeeping, "_mostly_garbage", lambda _: iter(("a",)))
    store.housekeeping.run_once()
    assert store.rotated == ["a"]
