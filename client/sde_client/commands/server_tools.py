"""The `sde fsck` and `sde pull` commands, which only run the server's own tools."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

import typer

_SERVER_PACKAGES = ("gateway", "gpu_worker", "orjson", "pydantic")
"""Packages of the server. They are missing where only the client is installed."""


def register(app: typer.Typer) -> None:
    """Add these commands to `sde`."""
    app.command()(fsck)
    app.command()(pull)


def fsck(
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair the store; stop the service first.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Data folder of the service; SDE_DATA_DIR by default, else ./data."),
    ] = None,
) -> None:
    """Check the store of a service on this machine. Exit code 0 if it is sound."""
    arguments = ["--fix"] if fix else []
    arguments += ["--data-dir", str(data_dir)] if data_dir is not None else []
    _run_tool("fsck", "gateway.fsck", _SERVER_PACKAGES, arguments)


def pull(
    repository: Annotated[
        str,
        typer.Argument(metavar="ID", help="Hub repository, such as stabilityai/sdxl-turbo."),
    ],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model for clients.")] = None,
    variant: Annotated[str | None, typer.Option(help="Weights variant, such as fp16.")] = None,
) -> None:
    """Download a model from the hub and add it to models.toml on this machine.

    Only safetensors files are downloaded, and the revision is pinned to a commit. An interrupted
    download resumes.
    """
    options = {"--revision": revision, "--name": name, "--variant": variant}
    arguments = [text for key, value in options.items() if value for text in (key, value)]
    packages = (*_SERVER_PACKAGES, "huggingface_hub", "tomlkit")
    _run_tool("pull", "gpu_worker.assets.pull", packages, [*arguments, "--", repository])


def _run_tool(
    tool: str, module: str, packages: Sequence[str], arguments: Sequence[str]
) -> NoReturn:
    if any(find_spec(name) is None for name in packages):
        print(
            f"sde: {tool} needs the server's packages; run it on the server's machine",
            file=sys.stderr,
        )
        raise typer.Exit(os.EX_UNAVAILABLE)
    command = [sys.executable, "-m", module, *arguments]
    raise typer.Exit(subprocess.run(command, check=False).returncode)
