"""The parts of bench/gpu on the make-believe device, and what watches over their processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench.gpu import report
from bench.gpu.ledger import Ledger, Line
from bench.gpu.process import PartProcess
from tests.support.service import ROOT

CASES = {
    "facts": "",
    "smoke": "^sd1 big$",
    "syncs": "^Euler",
    "memory_faults": "^sd15 (needs|decode)$",
    "sameness": "^sd15 again$",
}
"""The cheap cases of some parts, by pattern. Services and the matrix have tests of their own."""


def run(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.gpu", "--make-believe", "--out", str(out)]
    return subprocess.run(
        [*command, "--work", str(out / "work"), *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (out / "gpu.jsonl").read_text().splitlines()]


def test_cheap_cases_run_on_the_make_believe_device(tmp_path: Path) -> None:
    for part, cases in CASES.items():
        done = run(tmp_path, "--parts", part, "--cases", cases)
        assert "Traceback" not in done.stdout + done.stderr
    lines = lines_of(tmp_path)
    assert {line["part"] for line in lines} == set(CASES)
    assert [line for line in lines if line["problems"]] == []
    numbers = {(line["part"], line["case"]): line["numbers"] for line in lines}
    assert numbers["facts", "card"]["name"] == "Make-believe GPU"
    assert numbers["smoke", "sd1 big"]["lowest_db"] > 40
    euler = numbers["syncs", "EulerDiscreteScheduler"]
    assert euler["a_step"] == 0 and euler["once_a_job"] > 0
    assert numbers["sameness", "sd15 again"]["images"] == 5
    table = (tmp_path / "gpu.md").read_text()
    assert "# Make-believe GPU" in table and all(f"## {part}" in table for part in CASES)
    again = run(tmp_path, "--parts", "sameness", "--cases", "^sd15 again$")
    assert lines_of(tmp_path) == lines, again.stdout


def broken(out: Path, deadline_s: float) -> tuple[bool, list[Line], list[Line]]:
    """Run the broken part: whether all of it has ended, its lines, and what was reported."""
    out.mkdir(exist_ok=True)
    reported: list[Line] = []
    process = PartProcess(
        "tests.support.broken_cases",
        out / "gpu.jsonl",
        out,
        out / "gpu.log",
        time.monotonic() + deadline_s,
        reported.append,
    )
    return process.run(), Ledger(out / "gpu.jsonl").read(), reported


def test_a_case_that_hangs_or_dies_has_its_sentence_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_MAKE_BELIEVE", "1")
    is_complete, lines, reported = broken(tmp_path, deadline_s=300)
    assert is_complete and lines == reported
    cases = {line.case: line for line in lines}
    assert list(cases) == ["well", "raises", "hangs", "skips", "dies", "alone", "last"]
    assert cases["well"].numbers == {"answer": 42} and cases["well"].problems == []
    assert cases["raises"].problems == ["the case ended with ValueError: an odd error"]
    assert cases["hangs"].problems == ["it did not end within 3 s and was killed"]
    assert cases["skips"].skipped == "there is no such card"
    assert "ended by SIGSEGV in this case" in cases["dies"].problems[0]
    assert cases["alone"].numbers["pid"] != cases["last"].numbers["pid"]
    text = report.text(lines)
    assert "broken_cases / hangs: it did not end" in text and "skipped, there is no" in text


def test_a_part_that_is_cut_off_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_MAKE_BELIEVE", "1")
    assert broken(tmp_path, deadline_s=0)[:2] == (False, [])
    ledger = Ledger(tmp_path / "gpu.jsonl")
    for case in ("well", "raises", "hangs", "skips", "dies", "alone"):
        ledger.append(Line("tests.support.broken_cases", case))
    with (tmp_path / "gpu.jsonl").open("a") as file:
        file.write('{"part": "tests.support.broken_cases", "case": "la')
    is_complete, lines, reported = broken(tmp_path, deadline_s=300)
    assert is_complete and [line.case for line in reported] == ["last"]
    assert len(lines) == 7


def test_failed_cases_can_be_dropped(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "gpu.jsonl")
    ledger.append(Line("one", "good"))
    ledger.append(Line("one", "bad", problems=["it did not end"]))
    ledger.append(Line("two", "mended", problems=["it did not end"]))
    ledger.append(Line("two", "mended"))
    ledger.drop_failures()
    assert [line.key for line in ledger.read()] == [("one", "good"), ("two", "mended")]
