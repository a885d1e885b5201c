"""`sde fsck`: hands over to the server's own check of its store. It does not touch it itself."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

NOT_HERE = 69
"""EX_UNAVAILABLE of sysexits.h."""

_NEEDED = ("gpu_worker", "orjson", "pydantic")
"""The package may be installed for the client alone, without what its server side needs."""


def register(app: typer.Typer) -> None:
    """Add it to the `sde` command."""
    app.command()(fsck)


def fsck(
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend it; the service must be stopped.")
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="The service's; default SDE_DATA_DIR, else ./data.")
    ] = None,
) -> None:
    """Check the store of a service on this machine: exit code 0 when it is sound."""
    if any(find_spec(name) is None for name in _NEEDED):
        print("sde: fsck runs on the server's machine, where the service is", file=sys.stderr)
        raise typer.Exit(NOT_HERE)
    command = [sys.executable, "-m", "gpu_worker.fsck"]
    command += ["--fix"] if fix else []
    command += ["--data-dir", str(data_dir)] if data_dir is not None else []
    raise typer.Exit(subprocess.run(command, check=False).returncode)
