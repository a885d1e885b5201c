"""Shows how far a job is, on stderr: a bar on a terminal, a few plain lines elsewhere.

It draws what it is told; it asks nobody.
"""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sde_client.records import Job

_PARTS = 4
"""A plain log gets a line for each quarter of the steps, not one for each step."""


def describe(job: Job) -> str:
    """`queued, place 2`, `generating`, `succeeded` ..."""
    if job.state == "queued" and job.position is not None:
        return f"queued, place {job.position + 1}"
    if job.state == "running":
        return "canceling" if job.cancel_requested else "generating"
    return job.state


def seconds_left(job: Job) -> str:
    """`about 12 s left`, or nothing where nobody knows."""
    return "" if job.ended or job.eta_s is None else f"about {job.eta_s:.0f} s left"


class Bar:
    """A moving bar of the worker's own steps, with the time it took and what is left."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[steps]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._task: TaskID = self._progress.add_task("submitted", total=None, steps="", left="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, job: Job) -> None:
        """Draw where the job stands now."""
        started = job.step > 0 or job.ended
        self._progress.update(
            self._task,
            description=describe(job),
            total=max(job.steps, 1) if started else None,
            completed=job.step,
            steps=f"{job.step}/{job.steps} steps" if job.steps else "",
            left=seconds_left(job),
        )


class Lines:
    """One line for each change that matters: for pipes, logs and cron."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: tuple[str, int] | None = None

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def show(self, job: Job) -> None:
        """Say where the job stands, unless the line before said as much."""
        part = job.step * _PARTS // job.steps if job.steps else 0
        said = (describe(job), part)
        if said == self._said:
            return
        self._said = said
        steps = f", step {job.step} of {job.steps}" if job.step and not job.ended else ""
        left = seconds_left(job)
        self._console.print(f"{said[0]}{steps}{', ' if left else ''}{left}", markup=False)


def display(console: Console) -> Bar | Lines:
    """What suits the place that stderr goes to."""
    return Bar(console) if console.is_terminal else Lines(console)
