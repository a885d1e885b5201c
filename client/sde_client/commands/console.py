"""Defines the consoles, common arguments and exit codes of all commands."""

from __future__ import annotations

import contextlib
import functools
import textwrap
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
    errors.UnknownKey: 66,
    errors.GatewayUnreachable: 69,
    errors.GenerationFailed: 70,
    errors.NotSaved: 73,
    errors.StorageUnavailable: 74,
    errors.NotAvailable: 75,
    errors.WaitTimeout: 75,
    errors.UnexpectedReply: 76,
    errors.KeyRequired: 77,
    errors.NotAllowed: 77,
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
    """Print a message for the user to stderr; stdout is for scripts."""
    with contextlib.suppress(OSError):  # nobody can be told that nobody can be told
        err.print(wrapped(text, err), markup=False, highlight=False, soft_wrap=True)


def wrapped(text: str, console: Console = out) -> str:
    """Return the text in lines as long as the terminal, unchanged where there is none.

    A longer word, such as a path or an address, stays whole, so that it can be copied.
    """
    if not console.is_terminal:
        return text
    fill = functools.partial(
        textwrap.fill, width=console.width, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(map(fill, text.splitlines()))


def exit_code(error: errors.SdeError) -> int:
    """Return the exit code for an error, 1 when its class has none."""
    return next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), 1)
