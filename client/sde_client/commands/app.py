"""The `sde` command line: it turns arguments into Client calls, and errors into exit codes.

This module has the options that all commands share; each command module registers its own.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, NoReturn

import typer

from sde_client import errors
from sde_client.api import DEFAULT_URL, Client
from sde_client.commands import generate, jobs, models, rendering, server_tools, upscale, verify
from sde_client.commands.console import INTERRUPTED, exit_code, say

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Send prompts to a Stable Diffusion service and fetch the images.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_requested: bool) -> None:
    if is_requested:
        try:
            print(f"sde {version('sde-client')}")
        except PackageNotFoundError:
            print("sde (version unknown: the package sde-client is not installed)")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    url: Annotated[
        str, typer.Option(envvar="SDE_URL", help="Address of the gateway.")
    ] = DEFAULT_URL,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Create the Client that all commands use."""
    context.obj = context.with_resource(Client(url))


generate.register(app)
upscale.register(app)
verify.register(app)
jobs.register(app)
models.register(app)
server_tools.register(app)


def main() -> NoReturn:
    """Run the command; every error becomes a sentence on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A prompt may have characters that the terminal's charset lacks.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app()
    except errors.SdeError as error:
        say(f"sde: {rendering.plain(error)}")
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)


if __name__ == "__main__":
    main()
