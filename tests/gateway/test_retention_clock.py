"""Row 28 (fault 8): a clock that is wrong by years deletes nothing, or a small part."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.jobs.broker import Broker
from gateway.jobs.deletion import ResultDeletion
from gateway.jobs.journal import Journal
from gateway.jobs.retention import Housekeeping, Retention, newest_time
from gateway.store.input_store import InputStore
from gateway.store.result_index import ResultIndex
from gateway.store.retention_clock import RetentionClock
from gpu_worker.store import durable
from gpu_worker.store.durable import StoreTooNew, with_checksum
from gpu_worker.store.result_log import ResultLog
from tests.support.log_records import record

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY, YEAR = timedelta(days=1), timedelta(days=365)


class Computer:
    """A store and two clocks that the test sets: the wall's, and the one that nobody can set."""

    def __init__(self, folder: Path, days: float = 30) -> None:
        self.folder = folder
        self.log = ResultLog(folder / "disk_backups", "gpu-0", 1000)
        self.now, self.elapsed, self.sequence = START, timedelta(), 0
        self.days = days

    def work(self, days: int) -> None:
        """One result a day."""
        for _ in range(days):
            self.sequence += 1
            made = record(str(self.sequence), self.sequence, data="x" * 50)
            self.log.append(made | {"created_time": self.now.isoformat()})
            self.now += DAY

    def start(self) -> None:
        """A service starts, and has its first round."""
        self.journal = Journal(self.folder / "journal" / "jobs.jsonl")
        self.journal.open()
        self.index = ResultIndex(self.folder / "disk_backups")
        self.index.open(self.journal.deleted)
        inputs = InputStore(self.folder / "inputs")
        deletion = ResultDeletion(Broker(["gpu-0"], 0), self.journal, self.index, inputs)
        retention = Retention(days=self.days)
        self.housekeeping = Housekeeping(
            self.index, deletion, retention, 1 << 20, lambda _: None, lambda: self.now
        )
        self.housekeeping._clock = RetentionClock(
            self.folder / "journal" / "clock.json",
            lambda: newest_time(self.index),
            lambda: self.now,
            lambda: self.elapsed.total_seconds(),
        )
        self.round()

    def round(self, passed: timedelta = timedelta()) -> None:
        """A round, after the service has run for so long."""
        self.now, self.elapsed = self.now + passed, self.elapsed + passed
        self.index.refresh(*self.log.position)
        self.housekeeping.run_once()

    def stop(self) -> None:
        self.index.close()

    def left(self) -> list[int]:
        return [entry.sequence for entry in self.index.oldest_first()]


@pytest.mark.parametrize(
    ("jump", "had_file"),
    [
        *((years * YEAR, had_file) for years in (10, -10, 2) for had_file in (True, False)),
        *((days * DAY, True) for days in (365, 40, 29, 8)),
    ],
)
def test_a_wrong_clock_at_a_start_deletes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, jump: timedelta, had_file: bool
) -> None:
    computer = Computer(tmp_path)
    computer.work(25)
    if had_file:
        computer.start()
        computer.stop()
    right, computer.now = computer.now, computer.now + jump
    with caplog.at_level(logging.WARNING):
        computer.start()
    assert computer.left() == list(range(1, 26))
    assert ("is not believed" in caplog.text or "the clock says" in caplog.text) == (jump > DAY)
    # A result of that time does not make the clock right, nor do further starts.
    computer.work(1)
    for _ in range(3):
        computer.round(timedelta(minutes=1))
        computer.stop()
        computer.start()
    assert set(range(1, 26)) <= set(computer.left())
    # When the clock is right again, age counts as before.
    computer.now = right + 10 * DAY
    computer.round()
    computer.stop()
    computer.start()
    computer.round(DAY)
    assert set(range(15, 26)) <= set(computer.left())


@pytest.mark.parametrize("jump", [10 * YEAR, -10 * YEAR])
def test_a_clock_that_jumps_while_it_runs_deletes_nothing(tmp_path: Path, jump: timedelta) -> None:
    computer = Computer(tmp_path)
    computer.work(25)
    computer.start()
    computer.now += jump
    for _ in range(5):
        computer.round(timedelta(minutes=1))
    assert computer.left() == list(range(1, 26))
    computer.now -= jump
    computer.round(10 * DAY)
    assert computer.left() == list(range(7, 26))


def test_results_get_too_old_while_the_service_runs(tmp_path: Path) -> None:
    computer = Computer(tmp_path, days=3)
    computer.work(10)
    computer.start()
    assert computer.left() == [8, 9, 10]
    for _ in range(5):
        computer.round(DAY)
    assert computer.left() == []


def test_a_service_that_was_off_for_weeks_catches_up(tmp_path: Path) -> None:
    computer = Computer(tmp_path, days=3)
    computer.work(10)
    computer.start()
    computer.stop()
    computer.now += 20 * DAY
    computer.start()
    assert computer.left() == [8, 9, 10]
    for _ in range(4):
        computer.round(DAY)
    assert computer.left() == []


def test_a_week_off_is_believed(tmp_path: Path) -> None:
    computer = Computer(tmp_path, days=3)
    computer.work(10)
    computer.start()
    computer.stop()
    computer.now += 6 * DAY
    computer.start()
    assert computer.left() == []


def test_results_of_a_clock_that_was_behind_are_as_old_as_those_before(tmp_path: Path) -> None:
    computer = Computer(tmp_path, days=3)
    computer.work(2)
    right, computer.now = computer.now, computer.now - 10 * YEAR
    computer.work(2)
    computer.now = right
    computer.start()
    assert computer.left() == [1, 2, 3, 4]


def test_a_result_of_the_future_does_not_protect_those_after_it(tmp_path: Path) -> None:
    computer = Computer(tmp_path, days=3)
    computer.work(2)
    right, computer.now = computer.now, computer.now + 10 * YEAR
    computer.work(1)
    computer.now = right
    computer.work(10)
    computer.start()
    assert computer.left() == [3, 11, 12, 13]


def test_the_newest_result_of_a_wrong_clock_is_no_first_time(tmp_path: Path) -> None:
    computer = Computer(tmp_path)
    computer.work(20)
    computer.now += 10 * YEAR
    computer.work(1)
    computer.start()
    assert computer.left() == list(range(1, 22))


@pytest.mark.parametrize("content", [b"", b"{}\n", b"junk", with_checksum(b'{"v":1,"time":"x"')])
def test_a_damaged_file_begins_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clock").write_bytes(content)
    clock = RetentionClock(tmp_path / "clock", lambda: START, lambda: START + DAY)
    assert clock.read() == START + DAY


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clock").write_bytes(with_checksum(b'{"v":2,"times":[]'))
    with pytest.raises(StoreTooNew, match="version 2"):
        RetentionClock(tmp_path / "clock", lambda: START).read()


def test_a_time_that_cannot_be_stored_is_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk: what would make room goes on, and the log has one line."""
    clock = RetentionClock(tmp_path / "clock", lambda: START, lambda: START + DAY)

    def refuses(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(durable, "replace", refuses)
        assert clock.read() == clock.read() == START + DAY
    assert caplog.text.count("No space left") == 1
    clock.read()
    assert (tmp_path / "clock").exists()
