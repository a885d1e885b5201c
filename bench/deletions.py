"""What deletions cost a gateway's start: `python -m bench.deletions 1000 100000`.

For each number a store with so many deletions and no results is made as the gateway makes it; then
a fresh process opens journal and index as a start does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import psutil

from gateway.jobs.journal import Journal
from gateway.store import tombstones
from gateway.store.result_index import ResultIndex

AT_ONCE = 500


def opened(data: Path) -> tuple[Journal, ResultIndex]:
    """As gateway/assembly.py puts them together."""
    file = data / "journal" / "deleted.jsonl"
    index = ResultIndex(data / "disk_backups", file)

    def bury(deleted: dict[str, str | None]) -> None:
        tombstones.append(file, deleted)
        index.index_tombstones()

    journal = Journal(data / "journal" / "jobs.jsonl", write_tombstones=bury)
    journal.open()
    index.open(journal.deleted)
    return journal, index


def fill(data: Path, count: int) -> None:
    """Delete so many jobs that each had an Idempotency-Key; what is said of them is true alone."""
    (data / "disk_backups").mkdir(parents=True)
    journal, index = opened(data)
    for _ in range(0, count, AT_ONCE):
        gone: dict[str, str | None] = {
            str(uuid.uuid4()): f"{uuid.uuid4().hex}:{uuid.uuid4().hex}" for _ in range(AT_ONCE)
        }
        journal.delete(gone)
        index.delete(*gone)
    index.close()


def start(data: Path) -> None:
    """Print the seconds of one start and the KiB that it took."""
    resident = psutil.Process().memory_info
    before = resident().rss
    begun = time.perf_counter()
    kept = opened(data)
    seconds = time.perf_counter() - begun
    print(f"{seconds:.4f} {(resident().rss - before) >> 10}")
    del kept


def main() -> None:
    """One row a number."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", type=int, nargs="*", default=[0, 1000, 100_000])
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.start is not None:
        start(options.start)
        return
    print("deletions  jobs.jsonl KiB  deleted.jsonl KiB  index KiB  start ms  start KiB")
    for count in options.counts:
        with tempfile.TemporaryDirectory(prefix="sde-") as folder:
            data = Path(folder)
            fill(data, count)
            sizes = [
                sum(path.stat().st_size for path in data.glob(pattern)) >> 10
                for pattern in ("journal/jobs.jsonl", "journal/deleted.jsonl", "*/index.sqlite*")
            ]
            command = [sys.executable, "-m", "bench.deletions", "--start", folder]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            seconds, kib = said.split()
        row = f"{count:9} {sizes[0]:15} {sizes[1]:18} {sizes[2]:10}"
        print(f"{row} {float(seconds) * 1e3:9.1f} {kib:>10}", flush=True)


if __name__ == "__main__":
    main()
