"""The commands about what the service can do: its models and its workers; load and unload."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from sde_client.api import Client
from sde_client.commands import rendering
from sde_client.commands.console import AsJson, out, say

KINDS = (*("loras", "embeddings", "controlnets", "ip_adapters", "vaes", "upscalers", "refiners"),)

Model = Annotated[str, typer.Argument(help="A name of `sde models`.")]


def register(app: typer.Typer) -> None:
    """Add them to the `sde` command."""
    app.command()(models)
    app.command()(workers)
    app.command()(load)
    app.command()(unload)


def models(context: typer.Context, as_json: AsJson = False) -> None:
    """List what can be asked for: models, and what goes with them."""
    client: Client = context.obj
    found = client.models()
    if as_json:
        rendering.print_json(found)
        return
    rows = [_row(name, about, found.get("default")) for name, about in _items(found.get("models"))]
    rendering.print_rows(out, ("model", "pipeline", "modes", ""), rows)
    for kind in KINDS:
        names = [rendering.plain(name) for name, _ in _items(found.get(kind))]
        if names:
            print(f"{kind}: {', '.join(names)}")
    for _, broken in _items(found.get("errors")):
        for why in broken.values():
            print(f"cannot be used: {rendering.plain(str(why))}")
    if found.get("models_error"):
        say(f"models.toml goes on as it was, for now it is wrong: {found['models_error']}")


def _items(found: object) -> list[tuple[str, dict[str, Any]]]:
    """Of a table, or of a list of names."""
    if isinstance(found, dict):
        return [
            (str(name), about if isinstance(about, dict) else {}) for name, about in found.items()
        ]
    return [(str(name), {}) for name in found] if isinstance(found, list) else []


def _row(name: str, about: dict[str, Any], default: object) -> tuple[str, ...]:
    modes = about.get("modes")
    notes = [
        "default" if name == default else "",
        "loaded" if about.get("loaded") else "",
        f"cannot be loaded: {about['error']}" if about.get("error") else "",
    ]
    return (
        rendering.plain(name),
        rendering.plain(about.get("pipeline") or ""),
        rendering.plain(", ".join(map(str, modes)) if isinstance(modes, list) else ""),
        rendering.plain(", ".join(note for note in notes if note)),
    )


def workers(context: typer.Context, as_json: AsJson = False) -> None:
    """List the GPU processes and what they do."""
    client: Client = context.obj
    found = client.workers()
    if as_json:
        rendering.print_json([dataclasses.asdict(worker) for worker in found])
    else:
        rendering.print_workers(found)


def load(context: typer.Context, name: Model) -> None:
    """Have a worker load a model; `sde status --wait` waits until it has."""
    client: Client = context.obj
    client.load(name)
    print(f"{rendering.plain(name)} is being loaded")


def unload(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Default: each that is loaded.")] = None,
) -> None:
    """Have a model leave the GPU's memory."""
    client: Client = context.obj
    names = [name] if name is not None else _loaded(client.models())
    for each in names:
        client.unload(each)
        print(f"{rendering.plain(each)} leaves the memory")
    if not names:
        say("no model is loaded")


def _loaded(found: dict[str, Any]) -> list[str]:
    return [name for name, about in _items(found.get("models")) if about.get("loaded")]
