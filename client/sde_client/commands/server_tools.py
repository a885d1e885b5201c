"""`sde fsck` and `sde pull`: hand over to the server's own tools. They touch nothing themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

import typer

_NEEDED = ("gateway", "gpu_worker", "orjson", "pydantic")
"""The package may be installed for the client alone, without what its server side needs."""


def register(app: typer.Typer) -> None:
    """Add them to the `sde` command."""
    app.command()(fsck)
    app.command()(pull)


def fsck(
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend it; the service must be stopped.")
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="The service's; default SDE_DATA_DIR, else ./data.")
    ] = None,
) -> None:
    """Check the store of a service on this machine: exit code 0 when it is sound."""
    given = ["--fix"] if fix else []
    given += ["--data-dir", str(data_dir)] if data_dir is not None else []
    _hand_over("fsck", "gateway.fsck", _NEEDED, given)


def pull(
    repository: Annotated[str, typer.Argument(metavar="ID", help="stabilityai/sdxl-turbo or so.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    name: Annotated[str | None, typer.Option(help="What clients call it.")] = None,
    variant: Annotated[str | None, typer.Option(help="fp16 or so, if there is one.")] = None,
) -> None:
    """Bring a model from the hub into this machine's models folder, and name it in models.toml.

    safetensors only; the revision is pinned to a commit. A download that was broken off goes on.
    """
    options = {"--revision": revision, "--name": name, "--variant": variant}
    given = [text for key, value in options.items() if value for text in (key, value)]
    needed = (*_NEEDED, "huggingface_hub", "tomlkit")
    _hand_over("pull", "gpu_worker.assets.pull", needed, [*given, "--", repository])


def _hand_over(tool: str, module: str, needed: Sequence[str], given: Sequence[str]) -> NoReturn:
    if any(find_spec(name) is None for name in needed):
        print(f"sde: {tool} runs on the server's machine, where the service is", file=sys.stderr)
        raise typer.Exit(os.EX_UNAVAILABLE)
    command = [sys.executable, "-m", module, *given]
    raise typer.Exit(subprocess.run(command, check=False).returncode)
