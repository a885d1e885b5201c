"""`sde upscale`: a stored picture, or a file of one's own, made larger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from sde_client import image_file
from sde_client.api import Client
from sde_client.commands.generate import (
    Key,
    Output,
    Retry,
    send_with_retry,
    wait_and_save,
    with_key,
)


def register(app: typer.Typer) -> None:
    """Add it to the `sde` command."""
    app.command()(upscale)


def upscale(
    context: typer.Context,
    picture: Annotated[
        str, typer.Argument(metavar="UUID|FILE", help="A result, or a PNG, JPEG or WebP.")
    ],
    scale: Annotated[float, typer.Option(help="How many times as wide, at most 4.")] = 2.0,
    upscaler: Annotated[str, typer.Option(help="lanczos, or one of `sde models`.")] = "lanczos",
    image: Annotated[int | None, typer.Option(min=1, help="Which picture of the job.")] = None,
    output: Output = None,
    retry: Retry = False,
    key: Key = None,
) -> None:
    """Make a picture larger and save it."""
    client: Client = context.obj
    if output is not None:
        image_file.check(output)
    how: dict[str, Any] = {"scale": scale, "upscaler": upscaler}
    stored = _is_uuid(picture)
    if not stored and image is not None:
        raise typer.BadParameter(f"--image is of a result; {picture!r} is a file, which has one")

    def send(key: str) -> str:
        if stored:
            return client.upscale(picture, image_index=(image or 1) - 1, idempotency_key=key, **how)
        return client.submit(_title(picture), image=Path(picture), upscale=how, idempotency_key=key)

    uuid = with_key(lambda key: send_with_retry(lambda: send(key), retry), key)
    wait_and_save(client, uuid, output)


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def _title(file: str) -> str:
    """The file's name: a request has words, also where nothing is drawn."""
    return Path(file).name.encode("utf-8", "replace").decode()
