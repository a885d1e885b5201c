"""`sde logs`: the logs of a service by time, followed over rotations."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.monitoring.log_files import Line, LogFile, Logs
from tests.support.command import COMMAND, options, sde
from tests.support.service import DEADLINE_S, ROOT, running

URL = "http://127.0.0.1:9"


def stamped(second: int, text: str) -> str:
    return f"2026-01-01T00:00:{second:02}.000+00:00 INFO a: {text}\n"


def texts(lines: list[Line]) -> list[str]:
    return [line.text.rpartition(": ")[2] for line in lines]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "gateway.log"


@pytest.fixture
def reader(log: Path) -> Iterator[LogFile]:
    with contextlib.closing(LogFile(log)) as file:
        yield file


def last(log: Path, count: int) -> list[Line]:
    with contextlib.closing(LogFile(log)) as file:
        return file.last(count)


def append(log: Path, *numbers: int) -> None:
    with open(log, "a", encoding="utf-8") as file:
        file.writelines(stamped(number % 60, str(number)) for number in numbers)


def rotate(log: Path, backups: int = 2) -> None:
    """As supervisord does it (supervisor/loggers.py, doRollover)."""
    for number in range(backups - 1, 0, -1):
        source = Path(f"{log}.{number}")
        if source.exists():
            source.replace(f"{log}.{number + 1}")
    log.replace(f"{log}.1")
    log.touch()


def test_a_rotation_between_two_looks_loses_and_doubles_nothing(log: Path, reader: LogFile) -> None:
    append(log, 1, 2)
    assert texts(reader.last(10)) == ["1", "2"]
    append(log, 3)
    rotate(log)
    append(log, 4)
    assert texts(reader.read()) == ["3", "4"]
    rotate(log)
    append(log, 5)
    rotate(log)
    append(log, 6)
    assert texts(reader.read()) == ["5", "6"]
    assert reader.read() == []


def test_an_overtaken_reader_goes_on_with_the_oldest_that_is_left(
    log: Path, reader: LogFile
) -> None:
    append(log, 1)
    reader.last(1)
    for number in range(2, 6):
        rotate(log)
        append(log, number)
    assert texts(reader.read()) == ["3", "4", "5"]


def test_a_log_that_is_emptied_in_place_is_read_anew(log: Path, reader: LogFile) -> None:
    append(log, 1, 2, 3)
    reader.last(5)
    os.truncate(log, 0)
    append(log, 4)
    assert texts(reader.read()) == ["4"]


def test_a_line_comes_when_it_is_whole(log: Path, reader: LogFile) -> None:
    append(log, 1)
    reader.last(5)
    with open(log, "a", encoding="utf-8") as file:
        file.write(stamped(2, "2")[:-1])
        file.flush()
        assert reader.read() == []
        file.write("2\n")
    assert texts(reader.read()) == ["22"]


def test_the_last_lines_may_stand_in_rotated_files(log: Path) -> None:
    append(log, 1, 2)
    rotate(log)
    append(log, 3)
    rotate(log)
    append(log, 4)
    assert texts(last(log, 3)) == ["2", "3", "4"]
    assert texts(last(log, 99)) == ["1", "2", "3", "4"]
    assert last(log, 0) == []


def test_logs_are_merged_by_time_and_a_traceback_stays_with_its_event(tmp_path: Path) -> None:
    (tmp_path / "gateway.log").write_text(stamped(1, "g1") + "    trace\n" + stamped(4, "g4"))
    (tmp_path / "gpu-0.log").write_text(
        '{"time": "2026-01-01T00:00:02.000+00:00", "message": ": w2"}\n' + stamped(3, "w3")
    )
    (tmp_path / "supervisord.log").write_text("no time at all\n")
    with contextlib.closing(Logs(tmp_path, [])) as logs:
        order = [line.text[-4:] for line in logs.last(99)]
        assert order == [" all", ": g1", "race", 'w2"}', ": w3", ": g4"]
        append(tmp_path / "gpu-1.log", 9)
        assert texts(logs.added()) == ["9"]
    with contextlib.closing(Logs(tmp_path, ["gpu-0"])) as logs:
        assert [line.log for line in logs.last(99)] == ["gpu-0"] * 2


def test_a_raw_control_character_does_not_reach_the_terminal(log: Path) -> None:
    log.write_bytes(b"\x1b[2J\xff\r\x00\n")
    (line,) = last(log, 1)
    assert line.text.isprintable() and "\\x1b" in line.text


# ---- the command ------------------------------------------------------------------------------


def test_the_command_shows_the_logs_of_a_service(folder: Path) -> None:
    with running(folder, "supervisor") as service:
        service.result(service.submit("unseen words"))
        shown = sde(URL, "logs", "--data-dir", str(folder))
        assert shown.returncode == 0 and "unseen words" not in shown.stdout
        names = {line.split()[0] for line in shown.stdout.splitlines()}
        assert names == {"gateway", "gpu-0", "supervisord"}
        assert "job accepted" in shown.stdout
        one = sde(URL, "logs", "-n", "1", "gpu-0", "--data-dir", str(folder)).stdout
        assert len(one.splitlines()) == 1 and one.startswith("gpu-0 ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [([], "has no logs"), (["--data-dir", "/nowhere"], "has no logs")],
)
def test_without_logs_it_says_so(folder: Path, arguments: list[str], words: str) -> None:
    done = sde(URL, "logs", *arguments, SDE_DATA_DIR=str(folder))
    assert done.returncode == 66 and words in done.stderr


def test_an_unknown_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    append(tmp_path / "run" / "gateway.log", 1)
    done = sde(URL, "logs", "nope", "--data-dir", str(tmp_path))
    assert done.returncode == 66 and "no log named 'nope'; there are gateway" in done.stderr


def follow(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "logs", "-f", "--data-dir", str(folder)],
        cwd=ROOT,
        env=options(URL),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_it_follows_over_a_rotation_until_ctrl_c(tmp_path: Path) -> None:
    log = tmp_path / "run" / "gateway.log"
    log.parent.mkdir()
    append(log, 1)
    child = follow(tmp_path)
    guard = threading.Timer(DEADLINE_S, child.kill)
    guard.start()
    try:
        assert child.stdout is not None
        lines: Iterator[str] = iter(child.stdout)
        assert next(lines).endswith(": 1\n")
        append(log, 2)
        rotate(log)
        append(log, 3)
        assert [next(lines)[-2:], next(lines)[-2:]] == ["2\n", "3\n"]
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait(DEADLINE_S) == 130
    finally:
        guard.cancel()
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
