"""The `sde` command: arguments in, sentences and exit codes out. The Client does the work.

Here are the commands that make and fetch a picture; the others register themselves.
"""

from __future__ import annotations

import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from client import commands, errors, fsck, picture_file, progress, tables
from client.api import DEFAULT_URL, Client
from client.terminal import INTERRUPTED, Uuid, err, exit_code, say

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Send prompts to a Stable Diffusion service and fetch the pictures.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Output = Annotated[Path | None, typer.Option("--output", "-o", help="File; default UUID.png.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"sde {version('stable-diffusion-environment')}")
        except PackageNotFoundError:
            print("sde, not installed")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    url: Annotated[
        str, typer.Option(envvar="SDE_URL", help="The gateway's address.")
    ] = DEFAULT_URL,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Common to all commands."""
    context.obj = context.with_resource(Client(url))


def parse_size(text: str) -> tuple[int, int]:
    """`512x768` as (width, height) in pixels. Raises typer.BadParameter."""
    width, cross, height = text.lower().partition("x")
    if not (
        cross and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()
    ):
        raise typer.BadParameter(f"{text!r} is not WIDTHxHEIGHT, such as 512x512")
    return int(width), int(height)


@app.command()
def generate(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What the picture shall show.")],
    negative: Annotated[str | None, typer.Option(help="What it shall not show.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.")] = None,
    size: Annotated[
        Any, typer.Option(parser=parse_size, metavar="WxH", help="Pixels, such as 512x768.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same picture.")] = None,
    output: Output = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the uuid, go.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Wait while the server is busy.")] = False,
    key: Annotated[
        str | None, typer.Option(help="Sent again, the same key is the same job.")
    ] = None,
) -> None:
    """Make a picture and save it. Ctrl-C leaves the job running."""
    client: Client = context.obj
    if output is not None:
        picture_file.check(output)
    width, height = size or (None, None)
    parameters = {
        "negative_prompt": negative,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "width": width,
        "height": height,
        "seed": seed,
    }
    uuid = _submit(client, prompt, parameters | {"idempotency_key": key}, retry)
    if no_wait:
        print(uuid)
        return
    _wait_and_save(client, uuid, output)


def _submit(client: Client, prompt: str, parameters: dict[str, Any], retry: bool) -> str:
    while True:
        try:
            return client.submit(prompt, **parameters)
        except errors.NotAvailable as error:
            if not retry:
                raise
            say(f"{tables.plain(error)}; waiting")
            time.sleep(error.retry_after_s)


def _wait_and_save(client: Client, uuid: str, output: Path | None) -> None:
    try:
        with progress.display(err) as shown:
            results = client.wait(uuid, on_progress=shown.show)
        for result in results:
            target = output or Path(f"{uuid}.png")
            if result.num_images > 1:
                target = target.with_stem(f"{target.stem}-{result.image_index + 1}")
            path = client.save(result, target)
            say(f"seed {result.seed}, saved to")
            print(str(path))
    except KeyboardInterrupt:
        say(f"\njob {uuid} goes on; to fetch it: sde save {uuid}; to end it: sde cancel {uuid}")
        raise typer.Exit(INTERRUPTED) from None
    except (errors.GatewayUnreachable, errors.NotSaved):
        say(f"job {uuid} is not lost; to fetch it: sde save {uuid}")
        raise


@app.command()
def save(context: typer.Context, uuid: Uuid, output: Output = None) -> None:
    """Save a job's picture; wait for it where it has not ended.

    Several are saved as NAME-1.png, NAME-2.png and so on.
    """
    if output is not None:
        picture_file.check(output)
    _wait_and_save(context.obj, uuid, output)


commands.register(app)
fsck.register(app)


def main() -> NoReturn:
    """Run the command; every fault is a sentence on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A prompt in a script that the terminal's charset lacks is no reason to fall over.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app()
    except errors.SdeError as error:
        say(f"sde: {tables.plain(error)}")
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)


if __name__ == "__main__":
    main()
