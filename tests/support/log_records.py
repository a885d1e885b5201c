"""Records of the result log, and what a reader sees of them."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.http.json_array import array
from gateway.store import consolidation
from gateway.store.result_index import ResultIndex
from gpu_worker.store.result_log import ResultLog

NAME = "gpu-0.00000001.jsonl"
"""The first segment of the first worker."""


def record(text: str = "a", sequence: int = 1, data: str | None = None) -> dict[str, Any]:
    return {
        "uuid": str(uuid.uuid4()),
        "prompt": text,
        "created_time": "2026-01-01T00:00:00.000+00:00",
        "errors": [],
        "data": data,
        "state": "succeeded",
        "sequence": sequence,
        "submission": None,
        "seed": 5,
    }


def opened(folder: Path, segment_bytes: int = 1 << 20, writer: str = "gpu-0") -> ResultLog:
    log = ResultLog(folder, writer, segment_bytes)
    log.open()
    return log


def index_of(folder: Path, deleted: tuple[str, ...] = ()) -> ResultIndex:
    index = ResultIndex(folder)
    index.open(deleted)
    return index


def served(index: ResultIndex) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(b"".join(array(index.oldest_first(), index.read)))
    for line in found:
        line.pop("format")
        line.pop("crc32")
    return found


def read(folder: Path) -> list[dict[str, Any]]:
    index = index_of(folder)
    try:
        return served(index)
    finally:
        index.close()


def without_index(folder: Path) -> None:
    for path in folder.glob("index.sqlite*"):
        path.unlink()


def stubbornly(act: Callable[[], object]) -> None:
    try:
        act()
    except OSError:
        act()


def merge_all(index: ResultIndex) -> None:
    for run in list(consolidation.runs(index, 1 << 20)):
        with contextlib.suppress(OSError):
            consolidation.merge(index, run)
