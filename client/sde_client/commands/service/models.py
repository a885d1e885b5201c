"""Commands that list models and workers, and load or unload a model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sde_client.api import Client
from sde_client.commands import rendering
from sde_client.commands.console import AsJson, out, say

Model = Annotated[str, typer.Argument(help="A model listed by `sde models`.")]


def register(app: typer.Typer) -> None:
    """Add these commands to `sde`."""
    app.command()(models)
    app.command()(workers)
    app.command()(load)
    app.command()(unload)


def models(
    context: typer.Context,
    words: Annotated[
        bool, typer.Option("--words", help="List what the built-in model can draw.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the models and everything else in models.toml."""
    client: Client = context.obj
    library = client.models()
    if words:
        _print_words(library)
        return
    if as_json:
        rendering.print_json(library)
        return
    default = library.get("default")
    rows = [_row(name, model, default) for name, model in _items(library.get("models"))]
    rendering.print_rows(out, ("model", "pipeline", "modes", ""), rows)
    for kind, names in library.items():
        if isinstance(names, list) and names:
            print(f"{rendering.plain(kind)}: {', '.join(rendering.plain(str(n)) for n in names)}")
    for _, reasons in _items(library.get("errors")):
        for reason in reasons.values():
            print(f"cannot be used: {rendering.plain(str(reason))}")
    if library.get("models_error"):
        say(
            "models.toml has an error, so its previous version stays in use: "
            f"{rendering.plain(str(library['models_error']))}"
        )


def _print_words(library: dict[str, Any]) -> None:
    """Print the vocabulary of each model that has one, a word a line."""
    for _, model in _items(library.get("models")):
        vocabulary = model.get("vocabulary")
        for word in vocabulary if isinstance(vocabulary, list) else []:
            print(rendering.plain(str(word)))


def _items(table: object) -> list[tuple[str, dict[str, Any]]]:
    """Return the names and descriptions of a table, or of a list of names."""
    if isinstance(table, dict):
        return [
            (str(name), entry if isinstance(entry, dict) else {}) for name, entry in table.items()
        ]
    return [(str(name), {}) for name in table] if isinstance(table, list) else []


def _row(name: str, model: dict[str, Any], default: object) -> tuple[str, ...]:
    modes = model.get("modes")
    notes = [
        "default" if name == default else "",
        "loaded" if model.get("loaded") else "",
        f"cannot be loaded: {model['error']}" if model.get("error") else "",
    ]
    return (
        rendering.plain(name),
        rendering.plain(model.get("pipeline") or ""),
        rendering.plain(", ".join(map(str, modes)) if isinstance(modes, list) else ""),
        rendering.plain(", ".join(note for note in notes if note)),
    )


def workers(context: typer.Context, as_json: AsJson = False) -> None:
    """List the GPU workers and their state."""
    client: Client = context.obj
    descriptions = client.workers()
    if as_json:
        rendering.print_json([rendering.fields_of(worker) for worker in descriptions])
    else:
        rendering.print_workers(descriptions)


def load(context: typer.Context, name: Model) -> None:
    """Load a model into a worker. Use `sde status --wait SECONDS` to wait for it."""
    client: Client = context.obj
    client.load(name)
    print(f"{rendering.plain(name)} is being loaded")


def unload(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="All loaded models by default.")] = None,
) -> None:
    """Unload a model from the GPU's memory."""
    client: Client = context.obj
    names = [name] if name is not None else _loaded_names(client.models())
    for each in names:
        client.unload(each)
        print(f"{rendering.plain(each)} is being unloaded")
    if not names:
        say("no model is loaded")


def _loaded_names(library: dict[str, Any]) -> list[str]:
    return [name for name, model in _items(library.get("models")) if model.get("loaded")]
