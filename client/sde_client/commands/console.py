"""What all commands share: where they write, their common arguments, their exit codes."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from sde_client import errors

INTERRUPTED = 130
"""128 + SIGINT, as shells count."""

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
"""By sysexits.h; a subclass has its parent's. A command line that makes no sense is 2."""

Uuid = Annotated[str, typer.Argument(help="What `sde generate` printed.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]

out = Console()
err = Console(stderr=True)


def say(text: str) -> None:
    """To the person: stderr, as it is, never wrapped; stdout is for what a script reads."""
    err.print(text, markup=False, highlight=False, soft_wrap=True)


def exit_code(error: errors.SdeError) -> int:
    """What the command ends with for an error."""
    return next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), 1)
