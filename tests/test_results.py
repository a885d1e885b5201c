"""The result log: whole lines or none, whatever is cut, damaged or full."""

from __future__ import annotations

import errno
import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from gpu_worker.results import ResultIndex, ResultLog, array, encode


def record(text: str = "a") -> dict[str, Any]:
    return {"uuid": str(uuid.uuid4()), "prompt": text, "errors": [], "data": None}


def opened(path: Path) -> ResultLog:
    log = ResultLog(path)
    log.open()
    return log


def read(folder: Path) -> list[dict[str, Any]]:
    index = ResultIndex(folder)
    index.open()
    found: list[dict[str, Any]] = json.loads(b"".join(array(index.entries())))
    return found


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    log = opened(tmp_path / "gpu-0.jsonl")
    records = [record(text) for text in ("é", "猫\n🐶", 'a "quote" \\ ', "\u2028")]
    for each in records:
        log.append(each)
    assert read(tmp_path) == records
    assert log.committed == (tmp_path / "gpu-0.jsonl").stat().st_size
    assert all(each["uuid"] in opened(tmp_path / "gpu-0.jsonl") for each in records)


def test_a_log_cut_at_any_byte_of_the_last_record_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "gpu-0.jsonl"
    first, last, further = record("first"), record("last é"), record("further")
    whole, tail = encode(first), encode(last)
    for cut in range(len(tail) + 1):
        path.write_bytes(whole + tail[:cut])
        kept = [first] if cut < len(tail) else [first, last]
        assert read(tmp_path) == kept
        log = opened(path)
        assert log.committed == len(b"".join(map(encode, kept)))
        log.append(further)  # must not glue itself onto a torn tail
        log.close()
        assert read(tmp_path) == [*kept, further]


@pytest.mark.parametrize(
    "junk", [b"\n", b"\x00" * 4096 + b"\n", b"[]\n", b'{"uuid":"short"}\n', b"\xff\xfe\n"]
)
def test_damage_in_the_middle_is_passed_over(tmp_path: Path, junk: bytes) -> None:
    one, two = record("one"), record("two")
    (tmp_path / "gpu-0.jsonl").write_bytes(encode(one) + junk + encode(two))
    assert read(tmp_path) == [one, two]


def test_a_record_damaged_after_indexing_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "gpu-0.jsonl"
    one, two = record("one"), record("two")
    path.write_bytes(encode(one) + encode(two))
    index = ResultIndex(tmp_path)
    index.open()
    path.write_bytes(b"#" * len(encode(one)) + encode(two))
    assert json.loads(b"".join(array(index.entries()))) == [two]


def test_a_reader_never_reads_past_what_is_committed(tmp_path: Path) -> None:
    path = tmp_path / "gpu-0.jsonl"
    one, two = record("one"), record("two")
    path.write_bytes(encode(one) + encode(two))
    index = ResultIndex(tmp_path)
    assert index.refresh(path.name, len(encode(one))) == [one["uuid"]]
    assert index.refresh(path.name, len(encode(one))) == []
    assert index.refresh(path.name, path.stat().st_size) == [two["uuid"]]
    assert index.refresh("none.jsonl", 10) == []


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("written", [0, 10])
def test_a_failed_write_is_cut_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, written: int
) -> None:
    path = tmp_path / "gpu-0.jsonl"
    log = opened(path)
    one, two = record("one"), record("two")
    log.append(one)
    real, calls = os.write, iter((written, None))

    def short(descriptor: int, data: bytes) -> int:
        # A full disk takes a part first and refuses at the next call.
        take = next(calls)
        if not take:
            raise OSError(error, os.strerror(error))
        return real(descriptor, data[:take])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", short)
        with pytest.raises(OSError, match=os.strerror(error)):
            log.append(two)
    assert path.read_bytes() == encode(one)
    log.append(two)
    assert read(tmp_path) == [one, two]


def test_a_failed_sync_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path / "gpu-0.jsonl")

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fails)
        with pytest.raises(OSError):
            log.append(record())
    assert read(tmp_path) == [] and log.committed == 0


def test_a_log_that_is_a_link_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "gpu-0.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        opened(tmp_path / "gpu-0.jsonl")


def test_files_are_the_owners_alone(tmp_path: Path) -> None:
    opened(tmp_path / "sub" / "gpu-0.jsonl")
    assert (tmp_path / "sub" / "gpu-0.jsonl").stat().st_mode & 0o077 == 0
