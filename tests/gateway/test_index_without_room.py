"""The index on a disk that takes no writes: kept, read as it is, and taken up again by itself.

The disk is real; this process may not let a file grow, as a full one would not (getrlimit(2))."""

from __future__ import annotations

import contextlib
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.store import index_file
from gateway.store.index_file import INDEX_NAME
from gpu_worker.store import scan
from gpu_worker.store.result_log import ResultLog
from tests.support.log_records import index_of, opened, record, served


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """No byte may be written behind the first 16 of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def read_from(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The offsets from which segments were read."""
    offsets: list[int] = []
    lines = scan.lines

    def told(path: Path, start: int = 0, end: int | None = None) -> Any:
        offsets.append(start)
        return lines(path, start, end)

    monkeypatch.setattr(scan, "lines", told)
    return offsets


def filled(folder: Path) -> tuple[ResultLog, list[dict[str, Any]]]:
    log = opened(folder)
    records = [record(str(number), number, data="x" * 100) for number in range(5)]
    for each in records:
        log.append(each)
    index = index_of(folder)
    index.close()
    return log, records


def rows_on_disk(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / INDEX_NAME)) as db:
        return int(db.execute("SELECT COUNT(*) FROM results").fetchone()[0])


def test_a_sound_index_is_read_as_it_is(tmp_path: Path, read_from: list[int]) -> None:
    log, records = filled(tmp_path)
    read_from.clear()
    file = (tmp_path / INDEX_NAME).stat().st_ino
    with no_room():
        index = index_of(tmp_path)
        assert served(index) == records
    records.append(record("after", 9))
    log.append(records[-1])
    assert [entry.uuid for entry in index.refresh(*log.position)] == [records[-1]["uuid"]]
    assert served(index) == records
    index.close()
    assert read_from == [log.position[1] - len(line_of(log))]
    assert (tmp_path / INDEX_NAME).stat().st_ino == file and rows_on_disk(tmp_path) == 6


def line_of(log: ResultLog) -> bytes:
    name, _ = log.position
    return (log._directory / name).read_bytes().splitlines(keepends=True)[-1]


def test_what_it_lacks_is_found_and_it_is_taken_up_again(
    tmp_path: Path, read_from: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, records = filled(tmp_path)
    _, known = log.position
    for number in (5, 6):
        records.append(record(str(number), number))
        log.append(records[-1])
    read_from.clear()
    file = (tmp_path / INDEX_NAME).stat().st_ino
    monkeypatch.setattr(index_file, "RETRY_S", 0.0)
    with no_room():
        index = index_of(tmp_path)
        for _ in range(2):
            assert served(index) == records
        index.delete(records[0]["uuid"])
        assert served(index) == records[1:]
    assert set(read_from) == {known}, "what the index knew is not read anew"
    assert rows_on_disk(tmp_path) == 5
    assert index.find(records[6]["uuid"]) is not None
    assert rows_on_disk(tmp_path) == 6 and served(index) == records[1:]
    index.close()
    assert (tmp_path / INDEX_NAME).stat().st_ino == file


def test_a_damaged_one_is_made_anew_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, records = filled(tmp_path)
    (tmp_path / INDEX_NAME).write_bytes(b"no database at all, but long enough to be one" * 100)
    monkeypatch.setattr(index_file, "RETRY_S", 0.0)
    with no_room():
        index = index_of(tmp_path)
        assert served(index) == records
    assert served(index) == records
    index.close()
    assert rows_on_disk(tmp_path) == 5
