"""The commands that only run the server's own tools: `sde fsck`, `pull`, `logs` and `doctor`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from sde_client.commands.console import AsJson

SERVER_PACKAGES = ("gateway", "gpu_worker", "orjson", "pydantic")
"""Packages of the server. They are missing where only the client is installed."""


def register(app: typer.Typer) -> None:
    """Add these commands to `sde`."""
    app.command()(fsck)
    app.command()(pull)
    app.command()(logs)
    app.command()(doctor)


DataDir = Annotated[
    Path | None,
    typer.Option(help="Data folder of the service; SDE_DATA_DIR by default, else ./data."),
]


def fsck(
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair the store; stop the service first.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Check the store of a service on this machine. Exit code 0 if it is sound."""
    arguments = ["--fix"] if fix else []
    arguments += ["--data-dir", str(data_dir)] if data_dir is not None else []
    run_tool("fsck", "gateway.fsck", arguments)


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
    packages = (*SERVER_PACKAGES, "huggingface_hub", "tomlkit")
    run_tool("pull", "gpu_worker.assets.pull", [*arguments, "--", repository], packages)


def logs(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LOG]...", help="gateway, gpu-0 or supervisord; all by default."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Number of lines.")] = 50,
    data_dir: DataDir = None,
) -> None:
    """Show the logs of a service on this machine, in the order of time."""
    arguments = ["--lines", str(lines), *(["--follow"] if follow else [])]
    arguments += ["--data-dir", str(data_dir)] if data_dir is not None else []
    run_tool("logs", "gateway.monitoring.log_files", [*arguments, "--", *(names or [])])


def doctor(as_json: AsJson = False) -> None:
    """Check the installation of a service on this machine. Exit code 1 if there is a problem.

    It reads the settings from the environment, as the service does. The service may run or not.
    """
    arguments = ["--json"] if as_json else []
    run_tool("doctor", "gateway.doctor", arguments, packages=("gateway", "gpu_worker"))


def is_server_here(packages: Sequence[str] = ()) -> bool:
    """Return whether the server's packages, or the ones named, are installed here."""
    return all(find_spec(name) is not None for name in packages or SERVER_PACKAGES)


def run_tool(
    tool: str, module: str, arguments: Sequence[str], packages: Sequence[str] = ()
) -> NoReturn:
    """Run a tool of the server's packages and exit with its code."""
    command = _command(tool, module, arguments, packages)
    raise typer.Exit(subprocess.run(command, check=False).returncode)


def tool_output(tool: str, module: str, arguments: Sequence[str]) -> str:
    """Run a tool of the server's packages and return what it prints. Exits if it fails."""
    command = _command(tool, module, arguments)
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if process.returncode != os.EX_OK:
        raise typer.Exit(process.returncode)
    return process.stdout


def _command(
    tool: str, module: str, arguments: Sequence[str], packages: Sequence[str] = ()
) -> list[str]:
    if not is_server_here(packages):
        print(
            f"sde: {tool} needs the server's packages; run it on the server's machine",
            file=sys.stderr,
        )
        raise typer.Exit(os.EX_UNAVAILABLE)
    return [sys.executable, "-m", module, *arguments]
