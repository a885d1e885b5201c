"""Waits for a job and saves its images to files or to standard output."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sde_client import errors, image_file
from sde_client.api import Client
from sde_client.commands import progress, rendering
from sde_client.commands.console import INTERRUPTED, err, out, say
from sde_client.records import Result

STDOUT = Path("-")

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Output file (.png, .jpg or .webp), or - for standard output; UUID.png by default.",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace existing files instead of numbering the new one.")
]


def check_output(output: Path | None) -> None:
    """Check before a job is accepted that its images can be saved. Raises NotSaved."""
    if output == STDOUT:
        if sys.stdout.isatty():
            raise errors.NotSaved(STDOUT, "standard output is a terminal; redirect it to a file")
    elif output is not None:
        image_file.check_format(output)
        image_file.check(output)


def wait_and_save(client: Client, uuid: str, output: Path | None, force: bool = False) -> None:
    """Wait for a job and save its images; the default file name is UUID.png."""
    try:
        with progress.display(err) as display:
            results = client.wait(uuid, on_progress=display.show)
        say_warnings(results)
        if output == STDOUT:
            _write_to_stdout(results)
            return
        for number, result in enumerate(results, 1):
            target = output or Path(f"{uuid}.png")
            if len(results) > 1:
                target = target.with_stem(f"{target.stem}-{number}")
            _print_saved(image_file.write(result.png, target, replace=force), result)
    except KeyboardInterrupt:
        say(
            f"\njob {uuid} is still running; "
            f"to fetch it: sde save {uuid}; to end it: sde cancel {uuid}"
        )
        raise typer.Exit(INTERRUPTED) from None
    except (errors.GatewayUnreachable, errors.NotSaved):
        say(f"job {uuid} is still on the server; to fetch it: sde save {uuid}")
        raise


def say_warnings(results: list[Result]) -> None:
    """Say on standard error what the server warns of, once for all images of the job."""
    lists = (result.extra.get("warnings") for result in results)
    texts = [str(text) for each in lists if isinstance(each, list) for text in each]
    for text in dict.fromkeys(texts):
        say(f"note: {rendering.plain(text)}")


def _write_to_stdout(results: list[Result]) -> None:
    if len(results) != 1:
        raise errors.NotSaved(STDOUT, f"the job has {len(results)} images; standard output has one")
    sys.stdout.buffer.write(results[0].png or b"")
    sys.stdout.buffer.flush()


def _print_saved(path: Path, result: Result) -> None:
    """Print file, id, seed and seconds on one line; tab-separated where no terminal reads."""
    seconds = result.extra.get("seconds")
    # An upscaled image has no seed, because nothing was sampled.
    seed = "" if result.seed is None else str(result.seed)
    duration = f"{seconds:.1f}" if isinstance(seconds, int | float) else ""
    if out.is_terminal:
        uuid = result.uuid[: rendering.SHOWN_DIGITS]
        parts = [str(path), uuid, seed and f"seed {seed}", duration and f"{duration} s"]
        print("  ".join(rendering.plain(part) for part in parts if part))
    else:
        print("\t".join(map(rendering.plain, (path, result.uuid, seed, duration))))
