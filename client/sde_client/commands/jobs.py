"""The commands about what is there already: look at the service, its jobs and results; end a job,
delete a result."""

from __future__ import annotations

import dataclasses
import time
from typing import Annotated, Any

import typer

from sde_client import errors
from sde_client.api import Client
from sde_client.commands import rendering
from sde_client.commands.console import AsJson, Uuid, exit_code, out, say
from sde_client.http_api import MAX_PAGE

POLL_S = 0.25


def register(app: typer.Typer) -> None:
    """Add them to the `sde` command."""
    app.command()(status)
    app.command()(jobs)
    app.command("list")(list_results)
    app.command()(show)
    app.command()(cancel)
    app.command()(delete)


def status(
    context: typer.Context,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for it, at most.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say whether a job would be taken now: exit code 0, else 1."""
    client: Client = context.obj
    available = _await_available(client, wait)
    workers, storage = client.workers(), client.storage()
    if as_json:
        listed = [dataclasses.asdict(worker) for worker in workers]
        facts = {"is_available": available, "workers": listed}
        rendering.print_json({**facts, "storage": dataclasses.asdict(storage)})
    else:
        print("available" if available else "not available")
        rendering.print_workers(workers)
        rendering.print_trouble(storage)
    raise typer.Exit(0 if available else 1)


def _await_available(client: Client, wait_s: float) -> bool:
    """Raises GatewayUnreachable when nobody answers until the end."""
    ends = time.monotonic() + wait_s
    while True:
        late = time.monotonic() >= ends
        try:
            if client.is_available():
                return True
            if late:
                return False
        except errors.GatewayUnreachable:
            if late:
                raise
        time.sleep(POLL_S)


def jobs(context: typer.Context, as_json: AsJson = False) -> None:
    """List the jobs that run and wait, in their order."""
    client: Client = context.obj
    newest = client.jobs(MAX_PAGE)
    live = [job for job in reversed(newest) if not job.ended]
    if len(live) == MAX_PAGE:
        say(f"only the newest {MAX_PAGE} jobs are listed")
    if as_json:
        rendering.print_json([rendering.job_facts(job) for job in live])
    else:
        rendering.print_rows(out, rendering.JOB_COLUMNS, map(rendering.job_row, live))


def list_results(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="The newest N.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest results, the newest last."""
    client: Client = context.obj
    found = list(client.results(limit=limit, data=False))[::-1]
    if as_json:
        rendering.print_json([rendering.result_facts(result) for result in found])
    else:
        rendering.print_rows(out, rendering.RESULT_COLUMNS, map(rendering.result_row, found))


def show(context: typer.Context, uuid: Uuid, as_json: AsJson = False) -> None:
    """Show where a job stands, and what its result says."""
    client: Client = context.obj
    facts: dict[str, Any] = rendering.job_facts(client.job(uuid))
    facts |= rendering.facts_of_all(list(client.results(uuid, data=False)))
    if as_json:
        rendering.print_json(facts)
    else:
        rendering.print_facts(facts)


def cancel(context: typer.Context, uuid: Uuid) -> None:
    """End a job.

    A waiting one ends at once, a running one before its next step.
    """
    client: Client = context.obj
    job = client.cancel(uuid)
    print(f"canceled {job.uuid}" if job.ended else f"{job.uuid} ends before its next step")


def delete(
    context: typer.Context,
    uuids: Annotated[list[str], typer.Argument(metavar="UUID", help="Of jobs that have ended.")],
) -> None:
    """Delete results for good, their pictures too.

    It asks nothing. One that fails does not keep the others.
    """
    client: Client = context.obj
    code = 0
    for uuid in uuids:
        try:
            client.delete(uuid)
        except errors.GatewayUnreachable:
            # The others would fail likewise, each after its own timeout.
            raise
        except errors.SdeError as error:
            say(f"sde: {rendering.plain(uuid)} is not deleted: {rendering.plain(error)}")
            code = code or exit_code(error)
        else:
            print(f"deleted {rendering.plain(uuid)}")
    raise typer.Exit(code)
