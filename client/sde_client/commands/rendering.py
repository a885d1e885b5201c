"""How results, jobs and workers look on a terminal, in a pipe and as JSON. Asks nobody."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sde_client.records import Job, Result, Storage, Worker

RESULT_COLUMNS = ("uuid", "created", "state", "seed", "size", "prompt")
JOB_COLUMNS = ("uuid", "created", "state", "place", "steps", "left")


def plain(text: object) -> str:
    """One line without control characters: a prompt must not steer the reader's terminal."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def result_row(result: Result) -> tuple[str, ...]:
    """The cells of `sde list`."""
    width, height = result.extra.get("width"), result.extra.get("height")
    return (
        plain(result.uuid),
        _local(result.created_time),
        plain(result.state or ("failed" if result.png is None else "succeeded")),
        "" if result.seed is None else str(result.seed),
        f"{width}x{height}" if width and height else "",
        plain(result.prompt),
    )


def job_row(job: Job) -> tuple[str, ...]:
    """The cells of `sde jobs`."""
    return (
        plain(job.uuid),
        _local(job.created_time),
        "canceling" if job.cancel_requested and not job.ended else plain(job.state),
        "" if job.position is None else str(job.position + 1),
        f"{job.step}/{job.steps}",
        "" if job.eta_s is None else f"{job.eta_s:.0f} s",
    )


def _local(time: datetime) -> str:
    return time.astimezone().isoformat(" ", "seconds")


def print_rows(console: Console, columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> None:
    """A table on a terminal, tab-separated lines elsewhere."""
    if not console.is_terminal:
        for cells in rows:
            print("\t".join(cells))
        return
    table = Table(box=None, pad_edge=False)
    for name in columns:
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


def print_trouble(storage: Storage) -> None:
    """A line for each thing that the operator should look at."""
    if storage.trouble:
        print(f"storage: {plain(storage.trouble)}")
    if storage.damaged_lines:
        print(f"storage: damaged lines that are passed over: {storage.damaged_lines}")


def print_facts(facts: dict[str, Any]) -> None:
    """One `name: value` a line; what is not known is left out."""
    for name, value in facts.items():
        if value not in (None, [], ""):
            shown = "; ".join(map(_shown, value)) if isinstance(value, list) else plain(value)
            # Hundreds of digests: `sde diff` reads them, and --json shows them.
            print(f"{name}: {f'{len(value)} steps' if name == 'steps_log' else shown}")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{plain(name)} {plain(fact)}" for name, fact in value.items())
    return plain(value)


def result_facts(result: Result) -> dict[str, Any]:
    """Everything a result says, without its picture."""
    return {
        "uuid": result.uuid,
        "prompt": result.prompt,
        "created_time": result.created_time.isoformat(),
        "errors": result.errors,
        **({} if result.state is None else {"state": result.state}),
        "seed": result.seed,
        "image_index": result.image_index,
        "num_images": result.num_images,
        **result.extra,
    }


def facts_of_all(results: list[Result]) -> dict[str, Any]:
    """What all results of a job say, and under `images` what each of several says of its own."""
    found = [result_facts(result) for result in results]
    if len(found) < 2:
        return found[0] if found else {}
    shared = {
        name: value
        for name, value in found[0].items()
        if all(name in other and other[name] == value for other in found)
    }
    own = [{n: value for n, value in each.items() if n not in shared} for each in found]
    return {**shared, "images": own}


def job_facts(job: Job) -> dict[str, Any]:
    """Everything a job says."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in dataclasses.asdict(job).items()
    }


def print_json(value: object) -> None:
    """Indented JSON, never coloured or wrapped."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
