"""The `sde upscale` command, which enlarges a stored image or a local file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sde_client.api import Client
from sde_client.commands.generate import Key, NoQueue, Retry, send_with_key
from sde_client.commands.handles import resolve
from sde_client.commands.saving import Force, Output, check_output, wait_and_save


def register(app: typer.Typer) -> None:
    """Add this command to `sde`."""
    app.command()(upscale)


def upscale(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(metavar="JOB|FILE", help="A job, or a PNG, JPEG or WebP file."),
    ],
    scale: Annotated[float, typer.Option(help="Scale factor, at most 4.")] = 2.0,
    upscaler: Annotated[
        str, typer.Option(help="lanczos, or an upscaler listed by `sde models`.")
    ] = "lanczos",
    image: Annotated[
        int | None, typer.Option(min=1, help="Number of the image in the job, from 1.")
    ] = None,
    output: Output = None,
    force: Force = False,
    no_queue: NoQueue = False,
    retry: Retry = False,
    key: Key = None,
) -> None:
    """Upscale an image and save it."""
    client: Client = context.obj
    check_output(output)
    options: dict[str, Any] = {"scale": scale, "upscaler": upscaler}
    is_stored = not _is_file(source)
    job = resolve(client, source) if is_stored else ""
    if not is_stored and image is not None:
        raise typer.BadParameter(f"--image needs a job, but {source!r} is a file")

    def send(key: str) -> str:
        if is_stored:
            index = (image or 1) - 1
            return client.upscale(
                job, image_index=index, idempotency_key=key, queue=not no_queue, **options
            )
        file = Path(source)
        return client.submit(
            _title(file), image=file, upscale=options, idempotency_key=key, queue=not no_queue
        )

    uuid = send_with_key(send, key, retry=retry)
    wait_and_save(client, uuid, output, force)


def _is_file(source: str) -> bool:
    """Return whether the text is a file, or is meant to be one by its suffix."""
    try:
        return Path(source).suffix != "" or Path(source).is_file()
    except (OSError, ValueError):
        return False


def _title(file: Path) -> str:
    """Return the file's name as the prompt, because every request needs one."""
    return file.name.encode("utf-8", "replace").decode()
