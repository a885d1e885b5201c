"""Fault 19 and row 23: damage that comes after the index is counted, and its bytes stay."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.fsck.__main__ import main as fsck
from gateway.jobs.broker import Broker
from gateway.jobs.deletion import ResultDeletion
from gateway.jobs.journal import Journal
from gateway.jobs.retention import Housekeeping, Retention
from gateway.store.index_db import IndexDb
from gateway.store.input_store import InputStore
from gateway.store.result_index import ResultIndex
from gpu_worker.store import scan
from gpu_worker.store.durable import DamagedLine
from tests.support.gateway_parts import Begun, Parts
from tests.support.log_records import NAME, index_of, opened, record, served, without_index


def filled(folder: Path) -> list[dict[str, Any]]:
    log = opened(folder, segment_bytes=700)
    records = [record(str(number), number, data="x" * 100) for number in range(12)]
    for each in records:
        log.append(each)
    log.close()
    return records


def housekeeping(folder: Path, index: ResultIndex) -> Housekeeping:
    journal = Journal(folder / "journal" / "jobs.jsonl")
    journal.open()
    deletion = ResultDeletion(Broker([], 0), journal, index, InputStore(folder / "inputs"))
    return Housekeeping(index, deletion, Retention(), 1 << 20, lambda _: None)


def damaged(index: ResultIndex) -> int:
    return index.query(IndexDb.totals).damaged_lines


ROTS = {
    "a byte of the image": lambda text: text.replace(b"xxx", b"xxy", 1),
    "a byte of the uuid": lambda text: text[:12] + b"_" + text[13:],
    "a zero page": lambda text: text[:40] + b"\0" * 64 + text[104:],
    "its newline": lambda text: text.replace(b"}\n", b"}}", 1),
    "a newline inside": lambda text: text[:60] + b"\n" + text[61:],
}


@pytest.mark.parametrize("rot", ROTS)
def test_a_rotted_record_is_counted_and_kept_by_a_merge(tmp_path: Path, rot: str) -> None:
    folder = tmp_path / "disk_backups"
    records = filled(folder)
    index = index_of(folder)
    text = ROTS[rot]((folder / NAME).read_bytes())
    (folder / NAME).write_bytes(text)
    work = housekeeping(tmp_path, index)
    for _ in range(3):
        work.run_once()
        assert damaged(index) >= 1
    assert (folder / NAME).read_bytes() == text, "its bytes are where they were"
    left = served(index)
    assert records[0] not in left and all(each in left for each in records[3:])
    assert len(list(folder.glob("*-*.jsonl"))) >= 1, "the other segments are merged"
    count = damaged(index)
    index.close()
    without_index(folder)
    assert damaged(index_of(folder)) == count


def test_rot_of_a_deleted_record_stops_no_merge(tmp_path: Path) -> None:
    folder = tmp_path / "disk_backups"
    records = filled(folder)
    index = index_of(folder)
    index.delete(records[0]["uuid"])
    (folder / NAME).write_bytes((folder / NAME).read_bytes().replace(b"xxx", b"xxy", 1))
    housekeeping(tmp_path, index).run_once()
    assert not (folder / NAME).exists() and served(index) == records[1:]


KEYS = [f"{number:032x}" for number in range(3)]


def submitted(folder: Path) -> list[dict[str, Any]]:
    """Three results of requests with an Idempotency-Key."""
    log = opened(folder)
    records = [
        record(str(n), n, data="x" * 100) | {"submission": f"{KEYS[n]}:{KEYS[n]}"} for n in range(3)
    ]
    for each in records:
        log.append(each)
    log.close()
    return records


def refuses(error: Exception) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise error

    return refuse


@pytest.mark.parametrize("when", ["at once", "in the middle"])
@pytest.mark.parametrize("error", [OSError(5), sqlite3.OperationalError("full")])
def test_a_segment_that_cannot_be_read_again_stays_in_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, error: Exception
) -> None:
    """Its results are found and its Idempotency-Keys are known. A later read mends the index."""
    records = submitted(tmp_path)
    index = index_of(tmp_path)
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes().replace(b"xxx", b"xxy", 1))
    place = (scan, "lines") if when == "at once" else (IndexDb, "add")
    with monkeypatch.context() as patched:
        patched.setattr(*place, refuses(error))
        with pytest.raises(DamagedLine):
            index.read(records[0]["uuid"])
        with pytest.raises(type(error)):
            index.reread(NAME)
        for number, each in enumerate(records):
            assert index.find(each["uuid"]) is not None
            assert index.find_submission(KEYS[number]) is not None
        assert [index.read(each["uuid"]) is not None for each in records[1:]] == [True, True]
    assert index.read(records[0]["uuid"]) is None and damaged(index) == 1
    assert served(index) == records[1:]


def test_a_segment_that_is_shorter_but_unreadable_stays_in_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same while the index follows a writer that has cut its segment."""
    records = submitted(tmp_path)
    index = index_of(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(scan, "lines", refuses(OSError(5)))
        with pytest.raises(OSError):
            index.refresh(NAME, 10)
        assert all(index.find(each["uuid"]) is not None for each in records)


def test_a_segment_that_is_away_stays_in_the_index(tmp_path: Path) -> None:
    """A disk that is not mounted for a while costs no Idempotency-Key."""
    records = submitted(tmp_path)
    index = index_of(tmp_path)
    (tmp_path / NAME).rename(tmp_path / "away")
    index._segments.forget(NAME)
    with pytest.raises(FileNotFoundError):
        index.read(records[0]["uuid"])
    assert index.find_submission(KEYS[0]) is not None
    (tmp_path / "away").rename(tmp_path / NAME)
    assert served(index) == records


DAMAGES = {
    "a byte of the image": lambda text: text.replace(b"xxx", b"xxy", 1),
    "a byte of the uuid": lambda text: text[:12] + b"_" + text[13:],
}


def with_inputs(folder: Path, *uuids: str) -> None:
    for each in uuids:
        (folder / "inputs" / each).mkdir(parents=True)
        (folder / "inputs" / each / "image").write_bytes(b"precious")


def inputs_after_a_start(folder: Path) -> set[str]:
    Parts(folder)
    return {path.name for path in (folder / "inputs").iterdir()}


@pytest.mark.parametrize("rot", DAMAGES)
def test_the_inputs_of_a_rotted_record_stay_as_its_bytes_do(tmp_path: Path, rot: str) -> None:
    """Also after `sde fsck --fix`, which saves the bytes. A deleted job's are removed."""
    folder = tmp_path / "disk_backups"
    records = filled(folder)
    rotted, deleted, left = (records[number]["uuid"] for number in (0, 1, 2))
    (tmp_path / "inputs").mkdir()
    Parts(tmp_path).deletion.delete(deleted)
    with_inputs(tmp_path, rotted, deleted, left)
    (folder / NAME).write_bytes(DAMAGES[rot]((folder / NAME).read_bytes()))
    without_index(folder)
    assert inputs_after_a_start(tmp_path) == {rotted, left}
    assert fsck(["--fix", "--data-dir", str(tmp_path)], {}) == 0
    assert (folder / "damaged").is_dir()
    assert inputs_after_a_start(tmp_path) == {rotted, left}


def test_the_inputs_of_a_rotted_acceptance_stay(tmp_path: Path) -> None:
    """The journal's line of the job is damaged, and its bytes stay in the journal."""
    begun = Begun(tmp_path)
    with_inputs(tmp_path, begun.uuid)
    path = tmp_path / "journal" / "jobs.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"accepted"', b'"axcepted"', 1))
    for log in (tmp_path / "disk_backups").glob("*"):
        log.unlink()
    assert inputs_after_a_start(tmp_path) == {begun.uuid}


def test_only_inputs_are_removed_from_the_folder_of_inputs(tmp_path: Path) -> None:
    """A sound store: what was not accepted goes, and what the service did not put there stays."""
    filled(tmp_path / "disk_backups")
    orphan = str(uuid.uuid4())
    with_inputs(tmp_path, orphan, "my pictures", orphan.upper() + "x")
    assert inputs_after_a_start(tmp_path) == {"my pictures", orphan.upper() + "x"}
