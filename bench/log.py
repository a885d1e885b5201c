"""Measures the result log beside SQLite as the store, version 1's list, and a bare append.

In one run and turn about, each store in a process of its own; files are in the page cache. Goals:
lookup and start-up at most 1.5 times SQLite's, 64 MiB, an append that costs the same at any size.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from bench.log_rounds import Size, say
from bench.table import goal, markdown, number


def goals(sizes: list[Size]) -> str:
    """What was wanted, and whether it is met."""
    rows = []
    for each in sizes:
        found = each.rows()
        for what in ("lookup by uuid, median, us", "start-up, median, ms"):
            share = found[what]["ours"] / found[what]["SQLite"]
            rows.append(
                goal(f"{what.split(',')[0]} against SQLite at {each.size}", share, 1.5, "x")
            )
    first, last = sizes[0].rows(), sizes[-1].rows()
    size = sizes[-1].size
    rows.append(goal(f"start-up at {size}", last["start-up, median, ms"]["ours"] / 1e3, 1, " s"))
    memory = last["memory after start-up, median, MiB"]["ours"]
    rows.append(goal(f"memory after start-up at {size}", memory, 64, " MiB"))
    for what in ("append, median, ms", "append until it is found, median, ms"):
        flat = last[what]["ours"] / first[what]["ours"]
        title = what.removesuffix(", median, ms")
        rows.append(goal(f"{title}, {size} against {sizes[0].size}", flat, 1.5, "x"))
    disk = last["append, median, ms"]["floor"] / first["append, median, ms"]["floor"]
    rows.append([f"(the floor, {size} against {sizes[0].size})", "", number(disk, "x"), ""])
    return markdown(["goal", "wanted", "found", ""], rows)


def measure(sizes: list[Size], options: argparse.Namespace) -> None:
    """Sizes take turns too: a disk that is slow for a minute is slow for all of them."""
    for size in sizes:
        size.fill()
    for turn in range(options.starts):
        for size in sizes:
            size.start(turn)
    say("started")
    for size in sizes:
        size.open()
    for turn in range(-1, options.rounds):
        for size in sizes:
            size.round(turn)
        say(f"round {turn + 1} of {options.rounds}")
    for size in sizes:
        size.close()


def main() -> None:
    """Measure every size, print the tables and the goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 10_000, 100_000])
    parser.add_argument("--picture-bytes", type=int, default=8192, help="of base64, a record")
    parser.add_argument("--rounds", type=int, default=60, help="each store's turns")
    parser.add_argument("--starts", type=int, default=9, help="fresh processes, a store")
    parser.add_argument("--appends", type=int, default=10, help="a turn")
    parser.add_argument("--lookups", type=int, default=50, help="a turn")
    parser.add_argument("--pages", type=int, default=2, help="of each kind, a turn")
    parser.add_argument("--folder", type=Path, help="an existing one on the disk to be measured")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sde-bench-", dir=options.folder))
    sizes = [Size(options, folder, count) for count in sorted(options.sizes)]
    try:
        measure(sizes, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for size in sizes:
        print(f"\n{size.table()}\n\n{size.notes()}")
    print(f"\n{goals(sizes)}")


if __name__ == "__main__":
    main()
