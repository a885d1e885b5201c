"""Formats results, jobs and workers for a terminal, a pipe or as JSON. Makes no requests."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sde_client.commands.console import wrapped
from sde_client.records import Job, Result, Storage, Worker

SHOWN_DIGITS = 8
"""The digits of a uuid that are shown on a terminal."""

SLOW_STEP_S = 10
"""The age of a step from which `sde status` shows it."""

RESULT_COLUMNS = ("uuid", "created", "state", "seed", "size", "prompt")
JOB_COLUMNS = ("uuid", "created", "state", "position", "steps", "left")


def plain(text: object) -> str:
    """Return the text as one line without control characters.

    A prompt must not control the reader's terminal.
    """
    return "".join(c if c.isprintable() else " " for c in str(text))


def result_row(result: Result) -> tuple[str, ...]:
    """Return the cells of one row of `sde list`."""
    width, height = result.extra.get("width"), result.extra.get("height")
    return (
        plain(result.uuid),
        _local(result.created_time),
        plain(result.state or ("failed" if result.png is None else "succeeded")),
        "" if result.seed is None else str(result.seed),
        f"{width}x{height}" if width and height else "",
        plain(result.prompt),
    )


def match_row(image: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of one row of `sde list WORDS`."""
    try:
        created = _local(datetime.fromisoformat(str(image.get("created_time"))))
    except ValueError:
        created = ""
    seed, width, height = (image.get(name) for name in ("seed", "width", "height"))
    return (
        plain(image.get("name", "")),
        created,
        plain(image.get("state", "")),
        "" if seed is None else str(seed),
        f"{width}x{height}" if width and height else "",
        plain(image.get("prompt", "")),
    )


def job_row(job: Job) -> tuple[str, ...]:
    """Return the cells of one row of `sde jobs`."""
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
    """Print a table on a terminal, and tab-separated lines elsewhere."""
    if not console.is_terminal:
        for cells in rows:
            print("\t".join(cells))
        return
    names = list(columns)
    lines = [[_short(*cell) for cell in zip(names, cells, strict=True)] for cells in rows]
    widths = [max(map(len, column)) for column in zip(names, *lines, strict=True)]
    # The last column, which is a prompt or a note, gets what the others leave.
    widths[-1] = max(len(names[-1]), console.width - sum(widths[:-1]) - 2 * (len(names) - 1))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, width in zip(names, widths, strict=True):
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=width)
    for line in lines:
        table.add_row(*map(Text, line))
    console.print(table)


def _short(column: str, cell: str) -> str:
    """Return the cell of a terminal: 8 digits of a uuid, and a time without seconds and zone."""
    if column == "uuid":
        return cell[:SHOWN_DIGITS]
    return cell[: len("2026-01-01 00:00")] if column == "created" else cell


def _print(text: str) -> None:
    print(wrapped(text))


def times(count: int) -> str:
    """Return `1 time`, `2 times` and so on."""
    return "1 time" if count == 1 else f"{count} times"


def print_workers(workers: Iterable[Worker]) -> None:
    """Print one line for each GPU worker."""
    for worker in workers:
        metadata = [worker.model, worker.device, worker.machine_size]
        about = f" ({', '.join(plain(value) for value in metadata if value)})"
        progress = f" step {worker.step} of {worker.steps} of {worker.uuid}" if worker.uuid else ""
        if worker.step_age_s is not None and worker.step_age_s >= SLOW_STEP_S:
            progress += f", for {worker.step_age_s:.0f} s"
        state = f"{plain(worker.state)}{progress}{about if any(metadata) else ''}"
        _print(f"{plain(worker.name)}: {state}")
        if worker.load_error:
            _print(f"{plain(worker.name)}: cannot load {plain(worker.load_error)}")
        elif worker.last_error:
            when = f" ({_local(worker.last_error_time)})" if worker.last_error_time else ""
            _print(f"{plain(worker.name)}: {plain(worker.last_error)}{when}")
        if worker.restarts:
            _print(f"{plain(worker.name)}: started again {times(worker.restarts)}")


def print_trouble(storage: Storage) -> None:
    """Print one line for each storage problem that an operator should look at."""
    if storage.trouble:
        _print(f"storage: {plain(storage.trouble)}")
    if storage.damaged_lines:
        _print(f"storage: damaged lines that are skipped: {storage.damaged_lines}")


def print_fields(fields: dict[str, Any]) -> None:
    """Print one `name: value` line for each field that has a value."""
    for name, value in fields.items():
        if value not in (None, [], ""):
            text = "; ".join(map(_format, value)) if isinstance(value, list) else plain(value)
            # The log may hold hundreds of digests: `sde diff` reads them, --json prints them.
            print(f"{name}: {f'{len(value)} steps' if name == 'steps_log' else text}")


def _format(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{plain(name)} {plain(part)}" for name, part in value.items())
    return plain(value)


def result_fields(result: Result) -> dict[str, Any]:
    """Return the fields of a result without its image, ready for JSON."""
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


def merged_fields(results: list[Result]) -> dict[str, Any]:
    """Merge the fields of a job's results: equal ones once, the others under `images`."""
    images = [result_fields(result) for result in results]
    if len(images) < 2:
        return images[0] if images else {}
    shared = {
        name: value
        for name, value in images[0].items()
        if all(name in other and other[name] == value for other in images)
    }
    differing = [
        {name: value for name, value in image.items() if name not in shared} for image in images
    ]
    return {**shared, "images": differing}


def fields_of(record: Job | Worker) -> dict[str, Any]:
    """Return the fields of a job or a worker, ready for JSON."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in dataclasses.asdict(record).items()
    }


def print_json(value: object) -> None:
    """Print indented JSON, without colors or wrapping."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
