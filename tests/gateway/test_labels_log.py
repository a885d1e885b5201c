"""The log of labels at the seams: a crash anywhere, damage, compaction, and the index's copy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.errors import StorageUnavailable
from gateway.fsck import __main__ as fsck
from gateway.jobs.broker import Broker
from gateway.jobs.deletion import ResultDeletion
from gateway.jobs.journal import Journal
from gateway.jobs.retention import Housekeeping, Retention
from gateway.jobs.trash import ResultTrash
from gateway.store.gallery import labels_log
from gateway.store.gallery.image_name import ImageName
from gateway.store.gallery.image_search import Filters
from gateway.store.gallery.labels_log import Label, LabelsLog
from gateway.store.input_store import InputStore
from gateway.store.result_index import ResultIndex
from gateway.store.retention_clock import RetentionClock
from gpu_worker.store import durable
from gpu_worker.store.durable import StoreTooNew
from gpu_worker.store.result_log import ResultLog
from tests.support.log_records import record, served

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def name(number: int) -> ImageName:
    return ImageName(f"00000000-0000-4000-8000-{number:012d}", 0)


class Store:
    """A store with a trash, as the gateway puts it together."""

    def __init__(self, data: Path, days: float = 7) -> None:
        for folder in ("disk_backups", "journal", "inputs"):
            (data / folder).mkdir(exist_ok=True, parents=True)
        self.data = data
        self.now, self.elapsed = NOW, timedelta()
        self.path = data / "journal" / "labels.jsonl"
        self.index = ResultIndex(data / "disk_backups", labels=self.path)
        self.journal = Journal(data / "journal" / "jobs.jsonl")
        self.log = ResultLog(data / "disk_backups", "gpu-0", 2000)
        self.log.open()
        self.journal.open()
        self.index.open(self.journal.deleted)
        broker, inputs = Broker(["gpu-0"], 0), InputStore(data / "inputs")
        self.deletion = ResultDeletion(broker, self.journal, self.index, inputs)
        self.labels = LabelsLog(self.path, self.index.is_removed, compact_bytes=2000)
        self.clock = RetentionClock(
            data / "journal" / "retention_clock.json",
            lambda: NOW,
            lambda: self.now,
            lambda: self.elapsed.total_seconds(),
        )
        self.trash = ResultTrash(
            broker, self.index, self.deletion, self.labels, days, now=self.clock.stamp
        )

    def wait(self, days: float) -> None:
        """Time passes, by every clock."""
        self.now += timedelta(days=days)
        self.elapsed += timedelta(days=days)

    def job(self, sequence: int, count: int = 1) -> list[ImageName]:
        first = record("text", sequence, data="eA==")
        numbers = [{"image_index": number, "num_images": count} for number in range(count)]
        self.log.append_all([first | each for each in numbers])
        self.index.refresh(*self.log.position)
        return [ImageName(first["uuid"], number) for number in range(count)]

    def housekeep(self) -> None:
        keeper = Housekeeping(
            self.index,
            self.deletion,
            Retention(),
            2000,
            lambda _: self.log.rotate(),
            clock=self.clock,
            empty_trash=self.trash.purge,
        )
        keeper.run_once()
        keeper.run_once()

    def shown(self, **filters: bool) -> list[ImageName]:
        return [row.name for row in self.index.search(Filters(**filters), 1000)[1]]  # type: ignore[arg-type]

    def close(self) -> None:
        self.index.close()
        self.log.close()


def test_cut_at_any_byte_only_the_last_event_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    log = LabelsLog(path)
    log.append(labels_log.STAR, [name(1)])
    whole = path.stat().st_size
    log.append(labels_log.TRASH, [name(1), name(2)], "2026-01-01T00:00:00.000+00:00")
    content = path.read_bytes()
    for size in range(whole, len(content)):
        path.write_bytes(content[:size])
        again = LabelsLog(path)
        again.append(labels_log.STAR, [name(3)])
        assert labels_log.read(path) == {name(1): Label(star=True), name(3): Label(star=True)}


def test_a_damaged_line_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    log = LabelsLog(path)
    for number in range(3):
        log.append(labels_log.STAR, [name(number)])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"star", b"sbar") + lines[2])
    assert set(labels_log.read(path)) == {name(0), name(2)}


def test_a_log_of_a_newer_version_is_refused_and_unchanged(tmp_path: Path) -> None:
    for body in (b'{"v":2,"event":"star","images":[]', b'{"v":1,"event":"tag","images":[]'):
        store = Store(tmp_path)
        store.trash.star(store.job(1), True)
        store.close()
        with store.path.open("ab") as file:
            file.write(durable.with_checksum(body))
        content = store.path.read_bytes()
        with pytest.raises(StoreTooNew):
            Store(tmp_path)
        assert store.path.read_bytes() == content
        store.path.unlink()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / "labels.jsonl"
    target.write_bytes(labels_log.encode(labels_log.STAR, [name(1)]))
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic link"):
        labels_log.read(path)
    with pytest.raises(OSError, match="symbolic link"):
        LabelsLog(path).append(labels_log.STAR, [name(2)])


def test_a_compaction_copies_damaged_lines(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    log = LabelsLog(path, compact_bytes=1000)
    log.append(labels_log.STAR, [name(1)])
    damage = path.read_bytes().replace(b"star", b"sbar")
    path.write_bytes(damage)
    log = LabelsLog(path, compact_bytes=1000)
    for _ in range(50):
        log.append(labels_log.STAR, [name(3)])
    assert path.stat().st_size < 3000 and damage in path.read_bytes()


def test_a_compaction_gives_the_same_labels_in_fewer_bytes(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    log = LabelsLog(path, lambda uuid: uuid == name(9).uuid, compact_bytes=1000)
    log.append(labels_log.TRASH, [name(1)], "2026-01-01T00:00:00.000+00:00")
    log.append(labels_log.DELETED, [name(2)])
    log.append(labels_log.STAR, [name(9)])
    for _ in range(200):
        log.append(labels_log.STAR, [name(3)])
        log.append(labels_log.UNSTAR, [name(3)])
    assert path.stat().st_size < 2000
    labels = labels_log.read(path)
    assert labels.pop(name(1)).trashed_time == "2026-01-01T00:00:00.000+00:00"
    assert labels == {name(2): Label(is_deleted=True)}


def test_the_trash_is_emptied_by_age_and_its_bytes_leave_the_disk(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old, new, whole = store.job(1, 3), store.job(2), store.job(3, 2)
    store.trash.trash([old[1], *whole])
    store.wait(6)
    store.trash.trash(new)
    store.housekeep()
    assert set(store.shown(trash=True)) == {old[1], *whole, *new}
    store.wait(2)
    store.housekeep()
    assert store.shown(trash=True) == new and store.shown() == [old[0], old[2]]
    assert store.index.is_removed(whole[0].uuid)
    disk = b"".join(path.read_bytes() for path in (tmp_path / "disk_backups").glob("*.jsonl"))
    assert disk.count(old[0].uuid.encode()) == 2 and whole[0].uuid.encode() not in disk
    store.close()
    again = Store(tmp_path)
    assert again.shown() == [old[0], old[2]] and again.shown(trash=True) == new
    assert again.trash.restore(new) == 1 and len(served(again.index)) == 3
    again.close()
    assert fsck.main(["--data-dir", str(tmp_path)], {}) == 0


@pytest.mark.parametrize("years", [10, -10])
def test_a_wrong_clock_empties_no_trash(tmp_path: Path, years: int) -> None:
    store = Store(tmp_path)
    before, meanwhile = store.job(1), store.job(2)
    store.trash.trash(before)
    store.housekeep()
    store.now += timedelta(days=365 * years)
    store.trash.trash(meanwhile)
    store.housekeep()
    assert set(store.shown(trash=True)) == {*before, *meanwhile}
    store.now -= timedelta(days=365 * years)
    store.wait(6)
    store.housekeep()
    assert set(store.shown(trash=True)) == {*before, *meanwhile}
    store.wait(2)
    store.housekeep()
    assert before[0] not in store.shown(trash=True)
    store.close()


def test_an_empty_trash_reads_no_clock(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.job(1)
    store.trash.purge(lambda: pytest.fail("it may write to a full disk"))
    store.close()


def test_a_merge_moves_what_is_in_the_trash(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = [store.job(number)[0] for number in range(1, 30)]
    store.trash.star(names[:2], True)
    store.trash.trash(names[1:3])
    store.trash.delete(names[20:])
    store.housekeep()
    assert store.shown(trash=True) == [names[2], names[1]] and store.shown(star=True) == names[:1]
    assert store.index.find_image(*names[1]) is None
    entry = store.index.find_image(*names[1], trash=True)
    assert entry is not None and store.index.read_data(entry) == b"eA=="
    assert store.trash.restore(names) == 2
    assert store.shown() == names[19::-1] and store.shown(star=True) == names[1::-1]
    store.close()


def test_an_old_index_is_rebuilt_with_its_labels(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = store.job(1, 2)
    store.trash.star(names, True)
    store.trash.trash(names[:1])
    store.index.query(lambda db: db._db.execute("PRAGMA user_version = 4"))
    store.close()
    again = Store(tmp_path)
    assert again.shown(star=True) == names[1:] and again.shown(trash=True) == names[:1]
    assert [line["image_index"] for line in served(again.index)] == [1]
    again.close()


def test_the_index_corrects_itself_from_the_log(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = store.job(1, 3)
    store.trash.star(names[:1], True)
    store.index.query(lambda db: db.labels.set({names[1]: Label(trashed_time="x")}))
    store.close()
    again = Store(tmp_path)
    assert again.shown() == names and again.shown(star=True) == names[:1]
    again.close()


def test_a_job_is_not_run_again_because_its_result_is_in_the_trash(tmp_path: Path) -> None:
    store = Store(tmp_path)
    names = store.job(1)
    store.trash.trash(names)
    assert store.index.has_outcome(names[0].uuid) and store.index.find(names[0].uuid) is None
    store.close()


def test_a_disk_that_refuses_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    names = store.job(1, 2)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fdatasync", refuse)
        for act in (store.trash.trash, store.trash.delete):
            with pytest.raises(StorageUnavailable):
                act(names[:1])
    assert store.shown() == names
    assert store.trash.trash(names) == 2 and store.shown() == []
    store.close()
