"""How results, jobs and workers look on a terminal, in a pipe and as JSON. Asks nobody."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from client.records import Job, Result, Worker

COLUMNS = ("uuid", "created", "state", "seed", "size", "prompt")


def plain(text: object) -> str:
    """One line without control characters: a prompt must not steer the reader's terminal."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def row(result: Result) -> tuple[str, ...]:
    """The cells of `sde list`."""
    width, height = result.extra.get("width"), result.extra.get("height")
    return (
        result.uuid,
        result.created_time.astimezone().isoformat(" ", "seconds"),
        "failed" if result.png is None else "succeeded",
        "" if result.seed is None else str(result.seed),
        f"{width}x{height}" if width and height else "",
        plain(result.prompt),
    )


def print_rows(console: Console, rows: Iterable[tuple[str, ...]]) -> None:
    """A table on a terminal, tab-separated lines elsewhere."""
    if not console.is_terminal:
        for cells in rows:
            print("\t".join(cells))
        return
    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, no_wrap=True, overflow="fold" if name == "uuid" else "ellipsis")
    for cells in rows:
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)


def print_workers(workers: Iterable[Worker]) -> None:
    """One line a GPU process."""
    for worker in workers:
        facts = [worker.model, worker.device, worker.machine_size]
        about = f" ({', '.join(plain(fact) for fact in facts if fact)})" if any(facts) else ""
        doing = f" step {worker.step} of {worker.steps} of {worker.uuid}" if worker.uuid else ""
        print(f"{plain(worker.name)}: {plain(worker.state)}{doing}{about}")


def print_facts(facts: dict[str, Any]) -> None:
    """One `name: value` a line; what is not known is left out."""
    for name, value in facts.items():
        if value not in (None, [], ""):
            shown = "; ".join(map(plain, value)) if isinstance(value, list) else plain(value)
            print(f"{name}: {shown}")


def result_facts(result: Result) -> dict[str, Any]:
    """Everything a result says, without its picture."""
    return {
        "uuid": result.uuid,
        "prompt": result.prompt,
        "created_time": result.created_time.isoformat(),
        "errors": result.errors,
        "seed": result.seed,
        **result.extra,
    }


def job_facts(job: Job) -> dict[str, Any]:
    """Everything a job says."""
    return {**dataclasses.asdict(job), "created_time": job.created_time.isoformat()}


def print_json(value: object) -> None:
    """Indented JSON, never coloured or wrapped."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
