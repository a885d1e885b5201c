"""The `sde` command: arguments in, sentences and exit codes out. The Client does the work."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import deque
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from client import errors, picture_file, progress, tables
from client.api import DEFAULT_URL, Client

INTERRUPTED = 130
"""128 + SIGINT, as shells count."""

EXIT_CODES: dict[type[errors.SdeError], int] = {
    errors.InvalidRequest: 64,
    errors.BadAddress: 64,
    errors.UnknownJob: 66,
    errors.GatewayUnreachable: 69,
    errors.GenerationFailed: 70,
    errors.NotSaved: 73,
    errors.NotAvailable: 75,
    errors.UnexpectedReply: 76,
}
"""By sysexits.h; a subclass has its parent's. A command line that makes no sense is 2."""

POLL_S = 0.25

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Send prompts to a Stable Diffusion service and fetch the pictures.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console()
err = Console(stderr=True)


def _say(text: str) -> None:
    """To the person: stderr, as it is, never wrapped; stdout is for what a script reads."""
    err.print(text, markup=False, highlight=False, soft_wrap=True)


Uuid = Annotated[str, typer.Argument(help="What `sde generate` printed.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File; default UUID.png.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


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
    uuid = _submit(client, prompt, parameters, retry)
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
            _say(f"{error}; waiting")
            time.sleep(error.retry_after_s)


def _wait_and_save(client: Client, uuid: str, output: Path | None) -> None:
    try:
        with progress.display(err) as shown:
            results = client.wait(uuid, on_progress=shown.show)
        for number, result in enumerate(results, 1):
            target = output or Path(f"{uuid}.png")
            if number > 1:
                target = target.with_stem(f"{target.stem}-{number}")
            path = client.save(result, target)
            _say(f"seed {result.seed}, saved to")
            print(str(path))
    except KeyboardInterrupt:
        _say(f"\njob {uuid} goes on; to fetch it: sde save {uuid}")
        raise typer.Exit(INTERRUPTED) from None
    except (errors.GatewayUnreachable, errors.NotSaved):
        _say(f"job {uuid} is not lost; to fetch it: sde save {uuid}")
        raise


@app.command()
def status(
    context: typer.Context,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for it, at most.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say whether a job would be taken now: exit code 0, else 1."""
    client: Client = context.obj
    available = _await_available(client, wait)
    workers = client.workers()
    if as_json:
        listed = [dataclasses.asdict(worker) for worker in workers]
        tables.print_json({"is_available": available, "workers": listed})
    else:
        print("available" if available else "not available")
        tables.print_workers(workers)
    raise typer.Exit(0 if available else 1)


def _await_available(client: Client, wait_s: float) -> bool:
    """Raises GatewayUnreachable when nobody answers until the end."""
    ends = time.monotonic() + wait_s
    while True:
        late = time.monotonic() >= ends
        try:
            if client.is_available():
                return True
            if late:
                return False
        except errors.GatewayUnreachable:
            if late:
                raise
        time.sleep(POLL_S)


@app.command("list")
def list_results(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="The newest N.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest results, the newest last."""
    client: Client = context.obj
    if as_json:
        facts = deque((tables.result_facts(result) for result in client.results()), maxlen=limit)
        tables.print_json(list(facts))
        return
    tables.print_rows(out, deque((tables.row(result) for result in client.results()), maxlen=limit))


@app.command()
def show(context: typer.Context, uuid: Uuid, as_json: AsJson = False) -> None:
    """Show where a job stands, and what its result says."""
    client: Client = context.obj
    facts: dict[str, Any] = tables.job_facts(client.job(uuid))
    for result in client.results(uuid):
        facts |= tables.result_facts(result)
    if as_json:
        tables.print_json(facts)
    else:
        tables.print_facts(facts)


@app.command()
def save(context: typer.Context, uuid: Uuid, output: Output = None) -> None:
    """Save a job's picture; wait for it where it has not ended."""
    if output is not None:
        picture_file.check(output)
    _wait_and_save(context.obj, uuid, output)


def _exit_code(error: errors.SdeError) -> int:
    return next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), 1)


def main() -> NoReturn:
    """Run the command; every fault is a sentence on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A prompt in a script that the terminal's charset lacks is no reason to fall over.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app()
    except errors.SdeError as error:
        _say(f"sde: {tables.plain(error)}")
        sys.exit(_exit_code(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)


if __name__ == "__main__":
    main()
