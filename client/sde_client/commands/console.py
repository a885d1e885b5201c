"""Defines the consoles, common arguments and exit codes of all commands."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer
from rich.console import Console

from sde_client import errors

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, the convention of POSIX shells."""

BROKEN_PIPE = 141
"""Exit code when the reader of the output has gone: 128 + SIGPIPE."""

CANNOT_WRITE = 74
"""Exit code when standard output cannot be written (sysexits.h, EX_IOERR)."""

EXIT_CODES: dict[type[errors.SdeError], int] = {
    errors.InvalidRequest: 64,
    errors.BadAddress: 64,
    errors.Conflict: 65,
    errors.NotComparable: 65,
    errors.UnknownJob: 66,
    errors.UnknownModel: 66,
    errors.UnreadableFile: 66,
    errors.NoImage: 66,
    errors.Deleted: 66,
    errors.GatewayUnreachable: 69,
    errors.GenerationFailed: 70,
    errors.NotSaved: 73,
    errors.StorageUnavailable: 74,
    errors.NotAvailable: 75,
    errors.WaitTimeout: 75,
    errors.UnexpectedReply: 76,
}
"""Exit codes of sysexits.h. A subclass has the code of its parent; a usage error exits with 2."""

Uuid = Annotated[
    str,
    typer.Argument(
        metavar="JOB", help="A job: its uuid or first digits, @1 for the newest, or its PNG."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

out = Console()
err = Console(stderr=True)


def say(text: str) -> None:
    """Print a message for the user to stderr, without wrapping; stdout is for scripts."""
    with contextlib.suppress(OSError):  # nobody can be told that nobody can be told
        err.print(text, markup=False, highlight=False, soft_wrap=True)


def exit_code(error: errors.SdeError) -> int:
    """Return the exit code for an error, 1 when its class has none."""
    return next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), 1)
