"""Displays a job's progress: a bar on a terminal, a few plain lines elsewhere.

It makes no requests; the caller passes each new state of the job.
"""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sde_client.records import Job

_PARTS = 4
"""A plain log gets one line for each quarter of the steps."""


def describe(job: Job) -> str:
    """Return the state for display, such as `queued, position 2` or `generating`."""
    if job.state == "queued" and job.position is not None:
        return f"queued, position {job.position + 1}"
    if job.state == "running":
        return "canceling" if job.cancel_requested else "generating"
    return job.state


def seconds_left(job: Job) -> str:
    """Return `about 12 s left`, or an empty string without an estimate."""
    return "" if job.ended or job.eta_s is None else f"about {job.eta_s:.0f} s left"


class Bar:
    """A progress bar of the denoising steps, with the elapsed and the remaining time."""

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
        """Update the bar with the job's state."""
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
    """Plain lines for pipes, logs and cron: one for each quarter or change of state."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[str, int] | None = None

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
        """Print a line, unless nothing has changed since the previous one."""
        part = job.step * _PARTS // job.steps if job.steps else 0
        description = describe(job)
        if (description, part) == self._last:
            return
        self._last = (description, part)
        steps = f", step {job.step} of {job.steps}" if job.step and not job.ended else ""
        left = seconds_left(job)
        self._console.print(f"{description}{steps}{', ' if left else ''}{left}", markup=False)


def display(console: Console) -> Bar | Lines:
    """Return a bar for a terminal, and plain lines for anything else."""
    return Bar(console) if console.is_terminal else Lines(console)
