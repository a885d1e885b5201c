"""The `sde` command line: it turns arguments into Client calls, and errors into exit codes.

This module has the options that all commands share; each command module registers its own.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, NoReturn

import typer

from sde_client import errors
from sde_client.api import DEFAULT_URL, Client
from sde_client.commands import (
    generate,
    jobs,
    rendering,
    upscale,
    verify,
)
from sde_client.commands.console import (
    BROKEN_PIPE,
    CANNOT_WRITE,
    INTERRUPTED,
    exit_code,
    say,
)
from sde_client.commands.service import keys, models, tools

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
    """Create the Client that all commands use. A key as an option would be in the process list."""
    source = context.get_parameter_source("url")
    if "#" in url and source is not None and source.name == "COMMANDLINE":
        raise errors.BadAddress("every user of this machine sees a key in --url; set SDE_URL")
    context.obj = context.with_resource(Client(url, key=os.environ.get("SDE_KEY")))


generate.register(app)
upscale.register(app)
verify.register(app)
jobs.register(app)
models.register(app)
keys.register(app)
tools.register(app)


def main() -> NoReturn:
    """Run the command; every error becomes a sentence on stderr and an exit code."""
    _open_streams()
    try:
        code = _run()
        sys.stdout.flush()
    except OSError as error:
        # Without this the interpreter reports the same error again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _stream_error(error)
    sys.exit(code)


def _stream_error(error: OSError) -> int:
    """Report that a standard stream cannot be written, and return the exit code."""
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    what = "standard output cannot be written" if error.filename is None else error.filename
    say(f"sde: {rendering.plain(what)}: {error.strerror or error}")
    return CANNOT_WRITE


def _open_streams() -> None:
    """Replace closed standard streams, and allow characters that a terminal lacks in a prompt."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The first free descriptor is that of the closed stream.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _run() -> int:
    """Run the command and return its exit code. Raises OSError of the standard streams."""
    try:
        app(standalone_mode=True)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer makes exit code 1 of it
            raise end.__context__ from None
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except errors.SdeError as error:
        say(f"sde: {rendering.plain(error)}")
        return exit_code(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    main()
