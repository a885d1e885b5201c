"""The result log and its index: whole lines or none, whatever is cut, damaged, moved or full."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gateway.http.json_array import array
from gateway.store import consolidation
from gateway.store.index_db import IndexDb
from gateway.store.result_index import ResultIndex
from gpu_worker.contract import output_size
from gpu_worker.store import durable, segments
from gpu_worker.store.durable import DamagedLine
from gpu_worker.store.record_line import encode, parse
from gpu_worker.store.result_log import ResultLog
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


class TestLine:
    def test_the_first_keys_are_the_first_versions_and_the_last_is_the_checksum(self) -> None:
        line = json.loads(encode(record(data="aGk=")))
        assert list(line)[:5] == ["uuid", "prompt", "created_time", "errors", "data"]
        assert list(line)[5:8] == ["format", "state", "sequence"] and list(line)[-1] == "crc32"

    @pytest.mark.parametrize("prompt", ['a,"data":"no', "é\u2028", "\\", '"data":null', ',"data'])
    @pytest.mark.parametrize("data", [None, "aGk=", "x" * 70000])
    def test_the_picture_is_found_without_a_parser(self, prompt: str, data: str | None) -> None:
        given = record(prompt, data=data) | {"errors": ["x", "data"]}
        line = encode(given)
        drawn = parse(line)
        assert (drawn.uuid, drawn.state, drawn.sequence) == (given["uuid"], "succeeded", 1)
        assert line[drawn.data_at : drawn.data_at + drawn.data_length].decode() == (data or "")

    def test_every_flipped_byte_is_noticed(self) -> None:
        line = encode(record(data="aGVsbG8="))
        for at in range(len(line)):
            for bit in (1, 0x20, 0x80):
                damaged = bytearray(line)
                damaged[at] ^= bit
                with pytest.raises(DamagedLine):
                    parse(bytes(damaged))


class TestLog:
    def test_what_was_appended_is_read_back(self, tmp_path: Path) -> None:
        log = opened(tmp_path)
        texts = ("é", "猫\n🐶", 'a "quote" \\ ', "\u2028")
        records = [record(text, number) for number, text in enumerate(texts)]
        for each in records:
            log.append(each)
        assert read(tmp_path) == records
        assert log.position == (NAME, (tmp_path / NAME).stat().st_size)

    def test_a_log_cut_at_any_byte_of_the_last_record_keeps_the_others(
        self, tmp_path: Path
    ) -> None:
        first, last, further = record("first", 1), record("last é", 2), record("further", 3)
        whole, tail = encode(first), encode(last)
        for cut in range(len(tail) + 1):
            without_index(tmp_path)
            (tmp_path / NAME).write_bytes(whole + tail[:cut])
            kept = [first] if cut < len(tail) else [first, last]
            assert read(tmp_path) == kept
            log = opened(tmp_path)
            assert log.position[1] == len(b"".join(map(encode, kept)))
            log.append(further)  # must not glue itself onto a torn tail
            log.close()
            assert read(tmp_path) == [*kept, further]

    @pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
    @pytest.mark.parametrize("written", [0, 10])
    def test_a_failed_write_is_cut_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, written: int
    ) -> None:
        log = opened(tmp_path)
        one, two = record("one", 1), record("two", 2)
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
        assert (tmp_path / NAME).read_bytes() == encode(one)
        log.append(two)
        assert read(tmp_path) == [one, two]

    def test_a_failed_sync_is_no_success(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = opened(tmp_path)

        def fails(descriptor: int) -> None:
            raise OSError(errno.EIO, "input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", fails)
            with pytest.raises(OSError):
                log.append(record())
        assert read(tmp_path) == [] and log.position[1] == 0

    def test_a_cut_back_that_fails_is_made_up_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = opened(tmp_path)
        one, two = record("one", 1), record("two", 2)

        def fails(*_: object) -> None:
            raise OSError(errno.EIO, "input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", fails)
            patched.setattr(os, "ftruncate", fails)
            with pytest.raises(OSError):
                log.append(one)
        log.append(two)
        assert read(tmp_path) == [two]

    def test_a_log_that_is_a_link_is_not_opened(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").touch()
        (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OSError):
            opened(tmp_path)

    def test_files_are_the_owners_alone(self, tmp_path: Path) -> None:
        opened(tmp_path / "sub")
        assert (tmp_path / "sub" / NAME).stat().st_mode & 0o077 == 0

    def test_a_full_segment_is_followed_by_another(self, tmp_path: Path) -> None:
        log = opened(tmp_path, segment_bytes=600)
        records = [record(str(number), number) for number in range(7)]
        for each in records:
            log.append(each)
        assert len(segments.live_segments(tmp_path)) > 2
        assert read(tmp_path) == records
        again = opened(tmp_path)
        assert again.position == log.position
        assert again.ends_with(records[-1]["uuid"]) and not again.ends_with(records[0]["uuid"])


class TestIndex:
    @pytest.mark.parametrize(
        "junk",
        [b"\n", b"\x00" * 4096 + b"\n", b"[]\n", b'{"uuid":"short"}\n', b"\xff\xfe\n", b"{}" * 99],
    )
    def test_damage_in_the_middle_is_skipped_and_counted(self, tmp_path: Path, junk: bytes) -> None:
        one, two = record("one", 1), record("two", 2)
        glued = not junk.endswith(b"\n")
        (tmp_path / NAME).write_bytes(encode(one) + junk + encode(two))
        index = index_of(tmp_path)
        assert served(index) == ([one] if glued else [one, two])
        assert index.query(IndexDb.totals).damaged_lines == 1

    def test_a_monstrous_line_costs_no_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(output_size, "MAX_LINE_BYTES", 1 << 20)
        one, two = record("one", 1), record("two", 2)
        with open(tmp_path / NAME, "wb") as file:
            file.write(encode(one))
            file.seek(100 << 20, os.SEEK_CUR)  # NULs without a newline
            file.write(b"\n" + encode(two))
        index = index_of(tmp_path)
        assert served(index) == [one, two]
        assert index.query(IndexDb.totals).damaged_lines == 1

    def test_a_record_damaged_after_indexing_is_left_out(self, tmp_path: Path) -> None:
        one, two = record("one", 1), record("two", 2)
        (tmp_path / NAME).write_bytes(encode(one) + encode(two))
        index = index_of(tmp_path)
        (tmp_path / NAME).write_bytes(b"#" * (len(encode(one)) - 1) + b"\n" + encode(two))
        assert served(index) == [two]

    def test_a_reader_never_reads_past_what_is_committed(self, tmp_path: Path) -> None:
        one, two = record("one", 1), record("two", 2)
        index = index_of(tmp_path)
        (tmp_path / NAME).write_bytes(encode(one) + encode(two))
        end = len(encode(one))
        assert [entry.uuid for entry in index.refresh(NAME, end)] == [one["uuid"]]
        assert index.refresh(NAME, end) == []
        size = (tmp_path / NAME).stat().st_size
        assert [entry.uuid for entry in index.refresh(NAME, size)] == [two["uuid"]]
        assert index.refresh("gpu-7.00000001.jsonl", 10) == []
        assert index.refresh("../../etc/passwd", 10) == []

    def test_what_a_writer_cut_back_is_forgotten(self, tmp_path: Path) -> None:
        one, two, three = (record(text, n) for n, text in enumerate(("one", "two", "three")))
        (tmp_path / NAME).write_bytes(encode(one) + encode(two))
        index = index_of(tmp_path)
        (tmp_path / NAME).write_bytes(encode(one) + encode(three))
        index.refresh(NAME, len(encode(one)))
        assert served(index) == [one]
        index.refresh(NAME, None)
        assert served(index) == [one, three]

    @pytest.mark.parametrize("vice", ["missing", "empty", "junk", "torn", "old", "version"])
    def test_a_bad_index_is_made_anew(self, tmp_path: Path, vice: str) -> None:
        log = opened(tmp_path)
        records = [record(str(number), number) for number in range(50)]
        for each in records[:40]:
            log.append(each)
        index_of(tmp_path).close()
        path = tmp_path / "index.sqlite"
        good = path.read_bytes()
        for each in records[40:]:
            log.append(each)
        if vice == "missing":
            path.unlink()
        elif vice == "version":
            with sqlite3.connect(path) as db:
                db.execute("PRAGMA user_version = 999")
            db.close()
        else:
            content = {
                "empty": b"",
                "junk": b"junk" * 4096,
                "torn": good[: len(good) // 2],
                "old": good,
            }
            path.write_bytes(content[vice])
        index = index_of(tmp_path)
        assert served(index) == records
        index.close()

    def test_an_index_of_another_log_misleads_nobody(self, tmp_path: Path) -> None:
        ours, theirs = tmp_path / "ours", tmp_path / "theirs"
        for folder in (ours, theirs):
            log = opened(folder)
            for number in range(5):
                log.append(record("same length", number))
            index_of(folder).close()
        wanted = [json.loads(line)["uuid"] for line in (ours / NAME).read_bytes().splitlines()]
        (ours / "index.sqlite").write_bytes((theirs / "index.sqlite").read_bytes())
        index = index_of(ours)
        list(array(index.oldest_first(), index.read))  # notices
        assert [line["uuid"] for line in served(index)] == wanted

    def test_the_first_of_a_double_counts(self, tmp_path: Path) -> None:
        one = record("one")
        (tmp_path / NAME).write_bytes(encode(one) + encode(one | {"prompt": "again"}))
        assert read(tmp_path) == [one]

    def test_order_is_that_of_acceptance_across_writers(self, tmp_path: Path) -> None:
        logs = [opened(tmp_path, writer=f"gpu-{number}") for number in range(2)]
        records = [record(str(number), number) for number in range(6)]
        for number in (3, 0, 5, 1, 2, 4):
            logs[number % 2].append(records[number])
        index = index_of(tmp_path)
        assert served(index) == records
        page = index.newest_first(4)
        assert [entry.sequence for entry in page] == [5, 4, 3, 2]
        assert [entry.sequence for entry in index.newest_first(4, page[-1])] == [1, 0]

    def test_a_record_without_its_picture(self, tmp_path: Path) -> None:
        log = opened(tmp_path)
        for given in (record("with", 1, data="aGk="), record("none", 2)):
            log.append(given)
            index = index_of(tmp_path)
            bare = json.loads(index.read_without_data(given["uuid"]) or b"")
            assert bare["data"] is None and bare["prompt"] == given["prompt"]
            assert index.read_data(given["uuid"]) == (given["data"] or "").encode()
            index.close()


class TestConsolidation:
    def filled(self, folder: Path) -> list[dict[str, Any]]:
        log = opened(folder, segment_bytes=700)
        records = [record(f"{number}", number, data="x" * 100) for number in range(12)]
        for each in records:
            log.append(each)
        log.close()
        return records

    def merged(self, index: ResultIndex) -> None:
        consolidation.clean_up(index.directory)
        for run in list(consolidation.runs(index, 1 << 20)):
            consolidation.merge(index, run)

    def test_small_segments_become_one_and_deleted_results_leave_the_disk(
        self, tmp_path: Path
    ) -> None:
        records = self.filled(tmp_path)
        index = index_of(tmp_path)
        for gone in records[2:5]:
            index.delete(gone["uuid"])
        before = sum(path.stat().st_size for path in tmp_path.glob("*.jsonl"))
        self.merged(index)
        left = records[:2] + records[5:]
        assert served(index) == left
        assert len(segments.list_all(tmp_path)) == 2  # the merged one and the newest
        after = sum(path.stat().st_size for path in tmp_path.glob("*.jsonl"))
        assert after < before * 0.8
        text = b"".join(path.read_bytes() for path in tmp_path.glob("*.jsonl"))
        assert records[3]["uuid"].encode() not in text
        index.close()
        without_index(tmp_path)
        assert read(tmp_path) == left

    def test_a_merged_segment_that_is_half_dead_is_merged_again(self, tmp_path: Path) -> None:
        records = self.filled(tmp_path)
        index = index_of(tmp_path)
        self.merged(index)
        for gone in records[:8]:
            index.delete(gone["uuid"])
        self.merged(index)
        assert served(index) == records[8:]
        text = b"".join(path.read_bytes() for path in tmp_path.glob("*.jsonl"))
        assert records[0]["uuid"].encode() not in text

    def test_a_reader_in_the_middle_sees_neither_gap_nor_double(self, tmp_path: Path) -> None:
        records = self.filled(tmp_path)
        index = index_of(tmp_path)
        stream = array(index.oldest_first(), index.read)
        parts = [next(stream), next(stream), next(stream)]
        self.merged(index)
        parts += list(stream)
        assert [line["uuid"] for line in json.loads(b"".join(parts))] == [
            each["uuid"] for each in records
        ]

    def test_the_writer_goes_on_behind_a_merge(self, tmp_path: Path) -> None:
        records = self.filled(tmp_path)
        index = index_of(tmp_path)
        self.merged(index)
        further = record("further", 99)
        opened(tmp_path).append(further)
        index.refresh(max(s.name for s in segments.live_segments(tmp_path)), None)
        assert served(index) == [*records, further]

    def test_a_damaged_record_does_not_stop_a_merge(self, tmp_path: Path) -> None:
        records = self.filled(tmp_path)
        index = index_of(tmp_path)
        text = bytearray((tmp_path / NAME).read_bytes())
        text[text.index(b"xxx")] ^= 1
        (tmp_path / NAME).write_bytes(bytes(text))
        self.merged(index)
        assert served(index) == records[1:]


@pytest.mark.parametrize("vice", ["error", "short", "before", "after"])
def test_no_failing_call_loses_or_doubles_a_result(tmp_path: Path, vice: str) -> None:
    """SQLite's loop: let the 1st, 2nd ... Nth call fail until the whole work passes untouched."""
    for number in range(1, 500):
        folder = tmp_path / str(number)
        acknowledged: list[dict[str, Any]] = []
        records = [record(str(n), n, data="x" * 50) for n in range(6)]
        with pytest.MonkeyPatch.context() as patch:
            disk = FaultyDisk(patch, number, vice)
            with contextlib.suppress(Crash, OSError):
                work(folder, records, acknowledged)
            untouched = 0 <= disk.calls < number
        consolidation.clean_up(folder) if folder.exists() else None
        index = index_of(folder) if folder.exists() else None
        found = served(index) if index else []
        assert [line["uuid"] for line in found].count("") == 0
        assert len({line["uuid"] for line in found}) == len(found), number
        lost = [each for each in acknowledged if each not in found]
        assert lost == [], number
        assert all(each in records for each in found)
        log = opened(folder)
        log.append(record("after", 99))
        without_index(folder)
        assert len(read(folder)) == len(found) + 1
        if untouched:
            assert number > 20
            return
    raise AssertionError("the work never passed untouched")


def work(folder: Path, records: list[dict[str, Any]], acknowledged: list[dict[str, Any]]) -> None:
    """Append over several segments, index, merge, go on; what fails is tried once more."""
    log = ResultLog(folder, "gpu-0", 500)
    log.open()
    for each in records[:4]:
        stubbornly(lambda each=each: log.append(each))  # type: ignore[misc]
        acknowledged.append(each)
    index = ResultIndex(folder)
    index.open()
    with contextlib.suppress(OSError):
        log.rotate()
    merge_all(index)
    stubbornly(lambda: log.append(records[4]))
    acknowledged.append(records[4])
    index.refresh(*log.position)
    merge_all(index)
    stubbornly(lambda: log.append(records[5]))
    acknowledged.append(records[5])
    log.close()
    index.close()


def test_an_index_that_refuses_a_merge_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = TestConsolidation().filled(tmp_path)
    index = index_of(tmp_path)

    def refuses(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(IndexDb, "move", refuses)
        for run in list(consolidation.runs(index, 1 << 20)):
            with pytest.raises(sqlite3.OperationalError):
                consolidation.merge(index, run)
    assert served(index) == records
    merge_all(index)  # what the index does not know must not be written over
    assert served(index) == records
    index.close()
    consolidation.clean_up(tmp_path)
    assert read(tmp_path) == records


def test_what_the_index_has_not_read_yet_is_not_merged_away(tmp_path: Path) -> None:
    log = opened(tmp_path, segment_bytes=700)
    index = index_of(tmp_path)
    records = [record(str(number), number, data="x" * 100) for number in range(9)]
    for each in records:
        log.append(each)
        merge_all(index)
    index.refresh(*log.position)
    assert served(index) == records


def test_a_damaged_line_is_not_merged_away(tmp_path: Path) -> None:
    records = TestConsolidation().filled(tmp_path)
    text = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(text.replace(b'"format":1', b'"format":2'))
    index = index_of(tmp_path)
    merge_all(index)
    assert (tmp_path / NAME).exists() and index.query(IndexDb.totals).damaged_lines > 0
    assert [line["uuid"] for line in served(index)] == [
        each["uuid"] for each in records[text.count(b"\n") :]
    ]


def test_last_line_is_found_over_any_distance(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content, last in [
        (b"", b""),
        (b"torn", b""),
        (b"one\n", b"one\n"),
        (b"one\ntwo\ntorn", b"two\n"),
        (b"x" * 200_000 + b"\n" + b"y" * 200_000 + b"\n" + b"z" * 99_999, b"y" * 200_000 + b"\n"),
    ]:
        path.write_bytes(content)
        assert durable.last_line(path) == last
