"""One store in a fresh process of its own: how it starts, then what it is told to measure.

So a store's memory, caches and garbage burden no other. The parent takes turns.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from bench.log_records import record, uuid_of
from bench.log_stores import STORES, Store

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Place:
    """Which store, where, and how much it holds."""

    store: str
    folder: Path
    size: int
    picture_bytes: int


@dataclass(frozen=True)
class Start:
    """Seconds from the begin of open() until the first lookup is answered, imports not counted,
    and how much resident memory has grown in them."""

    seconds: float
    memory_bytes: int


class StoreProcess:
    """The parent's side. Every measurement returns seconds, one for each call."""

    def __init__(self, place: Place) -> None:
        self._pipe, end = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(end, place), daemon=True)
        self._process.start()
        end.close()
        self.start: Start = self._pipe.recv()

    def append(self, first: int, count: int) -> list[tuple[float, float]]:
        """Records from this number on: until on disk, and until a lookup finds it too."""
        times: list[tuple[float, float]] = self._ask("append", first, count)
        return times

    def lookup(self, count: int, draw: int) -> list[float]:
        """Random uuids; the same `draw` gives the same ones."""
        times: list[float] = self._ask("lookup", count, draw)
        return times

    def page(self, limit: int, with_data: bool, count: int) -> list[float]:
        """The newest so many."""
        times: list[float] = self._ask("page", limit, with_data, count)
        return times

    def close(self) -> None:
        """Stop it cleanly."""
        self._pipe.send(None)
        self._process.join()
        self._pipe.close()

    def _ask(self, *command: Any) -> Any:
        self._pipe.send(command)
        return self._pipe.recv()


def _serve(pipe: Connection, place: Place) -> None:
    wanted = uuid_of(place.size // 2)
    store = STORES[place.store](place.folder)
    before = psutil.Process().memory_info().rss
    begun = time.perf_counter()
    store.open()
    if store.reads:
        _found(store.lookup(wanted))
    seconds = time.perf_counter() - begun
    pipe.send(Start(seconds, psutil.Process().memory_info().rss - before))
    measures: dict[str, Callable[..., Any]] = {"append": _append, "lookup": _lookup, "page": _page}
    for name, *arguments in iter(pipe.recv, None):
        pipe.send(measures[name](store, place, *arguments))
    store.close()


def _append(store: Store, place: Place, first: int, count: int) -> list[tuple[float, float]]:
    times = []
    for number in range(first, first + count):
        prepared = store.prepare(record(number, place.picture_bytes))
        begun = time.perf_counter()
        store.append(prepared)
        on_disk = time.perf_counter()
        store.take_in()
        times.append((on_disk - begun, time.perf_counter() - begun))
    if store.reads:
        _found(store.lookup(uuid_of(first + count - 1)))
    return times


def _lookup(store: Store, place: Place, count: int, draw: int) -> list[float]:
    chosen = random.Random(draw)
    times = []
    for uuid in [uuid_of(chosen.randrange(place.size)) for _ in range(count)]:
        begun = time.perf_counter()
        found = store.lookup(uuid)
        times.append(time.perf_counter() - begun)
        _found(found)
    return times


def _page(store: Store, place: Place, limit: int, with_data: bool, count: int) -> list[float]:
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        found = store.page(limit, with_data)
        times.append(time.perf_counter() - begun)
        _found(found)
    return times


def _found(answer: bytes | None) -> None:
    if not answer or answer == b"[]":
        raise SystemExit("a result that was stored is not found")
