"""The `sde key` commands: they make, list and revoke the keys of a service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sde_client import errors
from sde_client.api import Client
from sde_client.commands import rendering
from sde_client.commands.console import AsJson, out, say
from sde_client.commands.service import tools

Name = Annotated[str, typer.Argument(help="Letters, digits and . _ - (64 at most).")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Change the keys of this data folder, and ask no service."),
]


MODULE = "gateway.access"


def register(app: typer.Typer) -> None:
    """Add these commands to `sde`."""
    keys = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Make, list and revoke the keys of the service at SDE_URL. On its own machine, where "
        "they also work without a key, they change its data folder (SDE_DATA_DIR, else ./data).",
    )
    keys.command()(add)
    keys.command(name="list")(list_keys)
    keys.command()(revoke)
    app.add_typer(keys, name="key")


def add(
    context: typer.Context,
    name: Name,
    admin: Annotated[
        bool, typer.Option("--admin", help="The key may also manage models, keys and all jobs.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it. Nobody can read it again."""
    client: Client = context.obj
    place = _folder(client, data_dir)
    if place is not None:
        scopes = ["--admin"] if admin else []
        tools.run_tool("key", MODULE, [*place, "add", *scopes, "--", name])
    print(client.add_key(name, ["generate", "admin"] if admin else ["generate"]))
    say(f"the key {rendering.plain(name)} is one of {client.url}; it is shown only now")


def list_keys(context: typer.Context, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List the names of the keys, what they may do, and when they were made."""
    client: Client = context.obj
    place = _folder(client, data_dir)
    keys: list[dict[str, Any]] = (
        client.keys()
        if place is None
        else json.loads(tools.tool_output("key", MODULE, [*place, "list", "--json"]))
    )
    if as_json:
        rendering.print_json(keys)
        return
    rows = [
        (
            rendering.plain(str(key.get("name"))),
            rendering.plain(",".join(map(str, key.get("scopes") or ()))),
            rendering.plain(str(key.get("created_time"))).replace("T", " "),
        )
        for key in keys
    ]
    rendering.print_rows(out, ("key", "scopes", "created"), rows)


def revoke(context: typer.Context, name: Name, data_dir: DataDir = None) -> None:
    """Revoke a key. It is refused from now on, also by a running service."""
    client: Client = context.obj
    place = _folder(client, data_dir)
    if place is not None:
        tools.run_tool("key", MODULE, [*place, "revoke", "--", name])
    client.revoke_key(name)
    say(f"the key {rendering.plain(name)} is revoked at {client.url}")


def _folder(client: Client, data_dir: Path | None) -> list[str] | None:
    """Return the options that name a data folder, or None where the service manages its keys.

    The service manages them if the client has a key, or is admitted without one. Otherwise the
    folder of a service on this machine is used.

    Raises:
        SdeError: the service does not admit this sender, and is not of this machine.
    """
    if data_dir is not None:
        return ["--data-dir", str(data_dir)]
    if client.has_key:
        return None
    try:
        client.keys()
    except errors.SdeError as error:
        if not (client.is_local and tools.is_server_here()):
            raise
        is_refusal = isinstance(error, errors.KeyRequired | errors.NotAllowed)
        return ["--answering", client.url] if is_refusal else []
    return None
