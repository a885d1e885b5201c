"""One size of bench/log.py: every store filled with so many results, measured turn by turn."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.log_process import Place, Start, StoreProcess
from bench.log_records import record, records
from bench.log_stores import STORES
from bench.table import markdown, mean, number, quantile, ratio
from gpu_worker.store import record_line

MIB = 1 << 20
MOST_MEMORY_BYTES = 4 << 30
LISTED_COPIES = 2.5
"""The seed's way holds every record, and the whole JSON once more while it is written or read."""

SLOW_BYTES = 32 << 20
"""From this size on, a store that is rewritten as a whole at each append gets FEW starts, and FEW
appends after the others have had theirs: its writing would be their noise."""

FEW = 3

PAGES = {"20 newest without pictures": (20, False), "100 newest, whole": (100, True)}


@dataclass
class Figures:
    """Seconds (and bytes), one for each call."""

    starts: list[Start] = field(default_factory=list)
    append: list[float] = field(default_factory=list)
    findable: list[float] = field(default_factory=list)
    lookup: list[float] = field(default_factory=list)
    pages: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PAGES})


class Size:
    """All stores filled with so many results, measured round by round."""

    def __init__(self, options: argparse.Namespace, folder: Path, size: int) -> None:
        self.options = options
        self.size = size
        self.line_bytes = len(record_line.encode(record(size, options.picture_bytes)))
        self.whole_bytes = size * self.line_bytes
        too_large = self.whole_bytes * LISTED_COPIES > MOST_MEMORY_BYTES
        self.figures = {
            name: Figures() for name, kind in STORES.items() if not (kind.rewrites and too_large)
        }
        self.places = {
            name: Place(name, folder / f"{size}-{place}", size, options.picture_bytes)
            for place, name in enumerate(self.figures)
        }
        self.built: Start | None = None
        self._appended = 0
        self._running: dict[str, StoreProcess] = {}

    def fill(self) -> None:
        """Write the results, and have ours index them once."""
        for name, place in self.places.items():
            place.folder.mkdir(parents=True)
            begun = time.perf_counter()
            STORES[name](place.folder).fill(records(self.size, self.options.picture_bytes))
            say(f"{self.size}: {name} filled in {time.perf_counter() - begun:.1f} s")
        self.built = self._start("ours")

    def start(self, turn: int) -> None:
        """Each store in a fresh process."""
        for name in self._in_turn(turn):
            if turn < FEW or not self._is_slow(name):
                self.figures[name].starts.append(self._start(name))

    def open(self) -> None:
        """Processes that stay, for the rounds."""
        self._running = {name: StoreProcess(place) for name, place in self.places.items()}

    def round(self, turn: int) -> None:
        """Append, look up and list, each store in its turn; a turn below 0 is a warm-up."""
        for name in self._in_turn(turn):
            self._round(turn, name, self._running[name])
        self._appended += self.options.appends

    def close(self) -> None:
        """The appends that were put off, then the end."""
        for name, process in self._running.items():
            if self._is_slow(name):
                self._append(name, process, FEW)
            process.close()

    def _start(self, name: str) -> Start:
        process = StoreProcess(self.places[name])
        process.close()
        return process.start

    def _round(self, turn: int, name: str, process: StoreProcess) -> None:
        kept = self.figures[name] if turn >= 0 else Figures()
        if not self._is_slow(name):
            self._append(name, process, self.options.appends, kept)
        if STORES[name].reads:
            kept.lookup += process.lookup(self.options.lookups, turn)
            for title, (limit, with_data) in PAGES.items():
                kept.pages[title] += process.page(limit, with_data, self.options.pages)

    def _append(
        self, name: str, process: StoreProcess, count: int, kept: Figures | None = None
    ) -> None:
        kept = kept or self.figures[name]
        times = process.append(self.size + self._appended, count)
        kept.append += [on_disk for on_disk, _ in times]
        kept.findable += [found for _, found in times]

    def _is_slow(self, name: str) -> bool:
        return STORES[name].rewrites and self.whole_bytes > SLOW_BYTES

    def _in_turn(self, turn: int) -> list[str]:
        names = list(self.figures)
        first = turn % len(names)
        return names[first:] + names[:first]

    # ---- what was found -----------------------------------------------------------------------

    def rows(self) -> dict[str, dict[str, float]]:
        """Each figure's value for each store."""
        ours = self.built
        found: dict[str, dict[str, float]] = {}
        for name, figures in self.figures.items():
            append, findable, lookup = figures.append, figures.findable, figures.lookup
            seconds = [start.seconds for start in figures.starts]
            memory = [float(start.memory_bytes) for start in figures.starts]
            column = {
                "append, median, ms": quantile(append, 0.5) * 1e3,
                "append, mean, ms": mean(append) * 1e3,
                "append, p99, ms": quantile(append, 0.99) * 1e3,
                "append until it is found, median, ms": quantile(findable, 0.5) * 1e3,
                "lookup by uuid, median, us": quantile(lookup, 0.5) * 1e6,
                "lookup by uuid, p99, us": quantile(lookup, 0.99) * 1e6,
                **{f"{t}, median, ms": quantile(v, 0.5) * 1e3 for t, v in figures.pages.items()},
                "start-up, median, ms": quantile(seconds, 0.5) * 1e3,
                "memory after start-up, median, MiB": quantile(memory, 0.5) / MIB,
            }
            if not STORES[name].reads:
                column = {title: v for title, v in column.items() if title.startswith("append,")}
            elif name == "ours" and ours is not None:
                column["start-up without an index, once, ms"] = ours.seconds * 1e3
                column["memory after that, MiB"] = ours.memory_bytes / MIB
            for title, value in column.items():
                found.setdefault(title, {})[name] = value
        return found

    def table(self) -> str:
        """Markdown; ratios are against SQLite."""
        names = list(STORES)
        lines = []
        for title, values in self.rows().items():
            cells = [number(values.get(name, float("nan"))) for name in names]
            base = values.get("SQLite", float("nan"))
            lines.append([title, *cells, ratio(values.get("ours", float("nan")), base)])
        head = [f"{self.size:,} results".replace(",", " "), *names, "ours / SQLite"]
        return markdown(head, lines)

    def notes(self) -> str:
        """What was done otherwise here."""
        said = [f"Appends go on top: to {self.size + self._appended} results in the end."]
        for name, kind in STORES.items():
            if kind.rewrites and name not in self.figures:
                said.append(f"{name}: left out, it would need over {MOST_MEMORY_BYTES >> 30} GiB.")
            elif kind.rewrites and self._is_slow(name):
                each = f"{self.whole_bytes / MIB:.0f} MiB"
                said.append(f"{name}: {FEW} starts and appends, each of {each}.")
        return " ".join(said)


def say(text: str) -> None:
    """Progress, not a figure."""
    print(f"... {text}", flush=True)
