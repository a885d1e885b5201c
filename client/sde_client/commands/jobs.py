"""Commands that inspect the service, its jobs and its results, cancel a job or delete a result."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import webbrowser
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from sde_client import errors
from sde_client.api import Client
from sde_client.commands import rendering
from sde_client.commands.console import AsJson, Uuid, exit_code, out, say
from sde_client.commands.handles import MAX_IMAGES, is_uuid, resolve
from sde_client.http_api import MAX_PAGE

POLL_S = 0.25


def register(app: typer.Typer) -> None:
    """Add these commands to `sde`."""
    app.command()(status)
    app.command()(jobs)
    app.command("list")(list_results)
    app.command()(show)
    app.command()(cancel)
    app.command()(delete)
    app.command()(restore)
    app.command("open")(open_page)


def status(
    context: typer.Context,
    wait: Annotated[float, typer.Option(min=0, help="Wait at most this many seconds.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Report whether the service accepts a job now. Exit code 0 if yes, 1 if no."""
    client: Client = context.obj
    available = _await_available(client, wait)
    workers, storage = client.workers(), client.storage()
    if as_json:
        rendering.print_json(
            {
                "is_available": available,
                "workers": [rendering.fields_of(worker) for worker in workers],
                "storage": dataclasses.asdict(storage),
            }
        )
    else:
        print("available" if available else "not available")
        rendering.print_workers(workers)
        rendering.print_trouble(storage)
    raise typer.Exit(0 if available else 1)


def _await_available(client: Client, wait_s: float) -> bool:
    """Poll until the service accepts jobs, for at most `wait_s` seconds.

    Raises:
        GatewayUnreachable: the gateway is still unreachable at the end.
    """
    deadline = time.monotonic() + wait_s
    while True:
        is_last = time.monotonic() >= deadline
        try:
            if client.is_available():
                return True
            if is_last:
                return False
        except errors.GatewayUnreachable:
            if is_last:
                raise
        time.sleep(POLL_S)


def jobs(context: typer.Context, as_json: AsJson = False) -> None:
    """List the running and queued jobs in the order of the queue."""
    client: Client = context.obj
    newest = client.jobs(MAX_PAGE)
    live = [job for job in reversed(newest) if not job.ended]
    if len(live) == MAX_PAGE:
        say(f"only the newest {MAX_PAGE} jobs are listed")
    if as_json:
        rendering.print_json([rendering.fields_of(job) for job in live])
    else:
        rendering.print_rows(out, rendering.JOB_COLUMNS, map(rendering.job_row, live))


def list_results(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORDS]", help="List images whose prompt has all these words."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of results.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest results; the newest comes last."""
    client: Client = context.obj
    if words:
        _list_matches(client, " ".join(words), limit, as_json)
        return
    results = list(client.results(limit=limit, data=False))[::-1]
    if as_json:
        rendering.print_json([rendering.result_fields(result) for result in results])
    else:
        rendering.print_rows(out, rendering.RESULT_COLUMNS, map(rendering.result_row, results))


def _list_matches(client: Client, words: str, limit: int, as_json: bool) -> None:
    """Search on the server. A page has up to MAX_PAGE images."""
    matches: list[dict[str, Any]] = []
    while len(matches) < limit:
        size = min(MAX_PAGE, limit - len(matches))
        total, page = client.search(words, limit=size, offset=len(matches))
        matches += page
        if not page or len(matches) >= total:
            break
    matches.reverse()
    if as_json:
        rendering.print_json(matches)
    else:
        rendering.print_rows(out, rendering.RESULT_COLUMNS, map(rendering.match_row, matches))


def show(context: typer.Context, uuid: Uuid, as_json: AsJson = False) -> None:
    """Show a job's state and the metadata of its results."""
    client: Client = context.obj
    uuid = resolve(client, uuid)
    fields: dict[str, Any] = rendering.fields_of(client.job(uuid))
    fields |= rendering.merged_fields(list(client.results(uuid, data=False)))
    if as_json:
        rendering.print_json(fields)
    else:
        rendering.print_fields(fields)


def cancel(context: typer.Context, uuid: Uuid) -> None:
    """Cancel a job.

    A queued job ends at once. A running job ends before its next step.
    """
    client: Client = context.obj
    job = client.cancel(resolve(client, uuid))
    print(f"canceled {job.uuid}" if job.ended else f"{job.uuid} will end before its next step")


def delete(
    context: typer.Context,
    uuids: Annotated[list[str], typer.Argument(metavar="JOB", help="Jobs that have ended.")],
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Delete them for good, without the trash.")
    ] = False,
) -> None:
    """Move results and their images into the trash.

    The service deletes them for good after some days. If one deletion fails, the others still take
    place.
    """
    client: Client = context.obj
    codes: list[int] = []
    jobs_to_delete: list[str] = []
    # All handles are resolved first, because each deletion changes which job is @2.
    for uuid in uuids:
        with _reported(uuid, codes):
            jobs_to_delete.append(resolve(client, uuid))
    for uuid in jobs_to_delete:
        with _reported(uuid, codes):
            client.delete(uuid, trash=not at_once)
            print(f"deleted {rendering.plain(uuid)}")
    raise typer.Exit(codes[0] if codes else 0)


def restore(
    context: typer.Context,
    images: Annotated[
        list[str], typer.Argument(metavar="UUID[-N]", help="Jobs, or single images from 1.")
    ],
) -> None:
    """Move images out of the trash. A uuid alone restores all images of its job."""
    client: Client = context.obj
    names: list[str] = []
    for image in images:
        numbers = range(1, MAX_IMAGES + 1) if is_uuid(image) else ()
        names += [f"{image}-{number}" for number in numbers] or [image]
    print(f"restored {client.restore(*names)}")


def open_page(
    context: typer.Context,
    job: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="Show this job's first image.")
    ] = None,
) -> None:
    """Open the service's page in a browser, and print its address."""
    client: Client = context.obj
    uuid = resolve(client, job) if job is not None else None
    address = f"{client.url}/" + ("" if uuid is None else f"#picture/{uuid}-1")
    print(address)
    if not webbrowser.open(address):
        say("no browser could be started; open the address in one")


@contextlib.contextmanager
def _reported(uuid: str, codes: list[int]) -> Iterator[None]:
    """Report the error of one deletion and note its exit code, so that the others take place."""
    try:
        yield
    except errors.GatewayUnreachable:
        # Each further deletion would fail too, after its own timeout.
        raise
    except errors.SdeError as error:
        say(f"sde: {rendering.plain(uuid)} was not deleted: {rendering.plain(error)}")
        codes.append(exit_code(error))
