"""`sde generate` and `sde save`: the commands that make and fetch pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from sde_client import errors, image_file
from sde_client.api import Client
from sde_client.commands import option_parsers, progress, rendering
from sde_client.commands.console import INTERRUPTED, Uuid, err, say
from sde_client.records import Result

Output = Annotated[Path | None, typer.Option("--output", "-o", help="File; default UUID.png.")]
Retry = Annotated[bool, typer.Option("--retry", help="Wait while the server is busy.")]
Key = Annotated[str | None, typer.Option(help="Sent again, the same key is the same job.")]


def register(app: typer.Typer) -> None:
    """Add them to the `sde` command."""
    app.command()(generate)
    app.command()(save)


def generate(
    context: typer.Context,
    prompt: Annotated[str | None, typer.Argument(help="What the picture shall show.")] = None,
    negative: Annotated[str | None, typer.Option(help="What it shall not show.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.")] = None,
    size: Annotated[
        Any,
        typer.Option(parser=option_parsers.size, metavar="WxH", help="Pixels, such as 512x768."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same picture.")] = None,
    images: Annotated[int | None, typer.Option("-n", "--images", help="So many pictures.")] = None,
    model: Annotated[str | None, typer.Option(help="A name of `sde models`.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Its class name in diffusers.")] = None,
    scheduler_option: Annotated[
        list[Any] | None,
        typer.Option(
            help="Of its configuration.", parser=option_parsers.scheduler_option, metavar="K=V"
        ),
    ] = None,
    clip_skip: Annotated[int | None, typer.Option(help="Layers of the text encoder.")] = None,
    eta: Annotated[float | None, typer.Option(help="Noise of DDIM, 0 to 1.")] = None,
    guidance_rescale: Annotated[float | None, typer.Option(help="0 to 1.")] = None,
    lora: Annotated[
        list[Any] | None,
        typer.Option(help="One or more.", parser=option_parsers.lora, metavar="NAME[:WEIGHT]"),
    ] = None,
    embedding: Annotated[
        list[str] | None, typer.Option(help="A textual inversion.", metavar="NAME")
    ] = None,
    vae: Annotated[str | None, typer.Option(help="Another one.", metavar="NAME")] = None,
    image: Annotated[Path | None, typer.Option(help="To change.", metavar="FILE")] = None,
    mask: Annotated[
        Path | None, typer.Option(help="White is painted over.", metavar="FILE")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="How far to leave the image, 0 to 1.")
    ] = None,
    controlnet: Annotated[
        list[Any] | None,
        typer.Option(
            help="A picture to follow.",
            parser=option_parsers.controlnet,
            metavar="NAME:FILE[:SCALE][:start=X][:end=X]",
        ),
    ] = None,
    ip_adapter: Annotated[
        Any,
        typer.Option(
            help="A picture to imitate.",
            parser=option_parsers.ip_adapter,
            metavar="NAME:FILE[:SCALE]",
        ),
    ] = None,
    hires: Annotated[
        Any,
        typer.Option(
            help="A second pass, larger.",
            parser=option_parsers.hires,
            metavar="SCALE[:UPSCALER][:strength=X][:steps=N]",
        ),
    ] = None,
    refiner: Annotated[
        Any,
        typer.Option(
            help="It makes the last steps.",
            parser=option_parsers.refiner,
            metavar="NAME[:SWITCH_AT]",
        ),
    ] = None,
    step_log: Annotated[
        bool, typer.Option("--step-log", help="Note each step, for `sde diff`.")
    ] = False,
    like: Annotated[
        str | None, typer.Option(metavar="UUID", help="As that result, but what is said here.")
    ] = None,
    output: Output = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the uuid, go.")] = False,
    retry: Retry = False,
    key: Key = None,
) -> None:
    """Make pictures and save them. Ctrl-C leaves the job running."""
    if prompt is None and like is None:
        raise typer.BadParameter("a PROMPT is missing, or --like UUID to take one from")
    if output is not None:
        image_file.check(output)
    client: Client = context.obj
    width, height = size or (None, None)
    options = {
        "prompt": prompt,
        "negative_prompt": negative,
        "model": model,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "width": width,
        "height": height,
        "seed": seed,
        "num_images_per_prompt": images,
        "scheduler": scheduler,
        "scheduler_options": dict(scheduler_option or []) or None,
        "clip_skip": clip_skip,
        "eta": eta,
        "guidance_rescale": guidance_rescale,
        "image": image,
        "mask_image": mask,
        "strength": strength,
        "loras": lora or None,
        "controlnets": controlnet or None,
        "ip_adapter": ip_adapter,
        "embeddings": embedding or None,
        "vae": vae,
        "hires": hires,
        "refiner": refiner,
        "step_log": step_log or None,
    }
    parameters = _parameters_of(client, like) if like is not None else {}
    parameters |= {name: value for name, value in options.items() if value is not None}
    uuid = with_key(lambda key: submit(client, parameters | {"idempotency_key": key}, retry), key)
    if no_wait:
        print(uuid)
        return
    wait_and_save(client, uuid, output)


def with_key(send: Callable[[str], str], key: str | None) -> str:
    """What `send` returns for the key, or for a new one.

    Ctrl-C leaves open whether the job was taken; its key settles it.
    """
    key = key or str(uuid4())
    try:
        return send(key)
    except KeyboardInterrupt:
        say(f"\nthe job may have been taken; with --key {key} the same command asks for it, once")
        raise typer.Exit(INTERRUPTED) from None


def _parameters_of(client: Client, uuid: str) -> dict[str, Any]:
    """The parameters of a request for all images of a result again."""
    results = fetch_results(client, uuid, data=False)
    return {**client.to_request(results[0]), "num_images_per_prompt": len(results)}


def fetch_results(client: Client, uuid: str, data: bool = True) -> list[Result]:
    """A job's results. Raises UnknownJob, Deleted, or Conflict while it has none yet."""
    results = list(client.results(uuid, data=data))
    if not results:
        raise errors.Conflict(f"the job {uuid} is {client.job(uuid).state}: it has no result yet")
    return results


def submit(client: Client, parameters: dict[str, Any], retry: bool) -> str:
    """The job's uuid; with `retry` as soon as the server takes it."""
    return send_with_retry(lambda: client.submit(**parameters), retry)


def send_with_retry(send: Callable[[], str], retry: bool) -> str:
    """What it returns; with `retry` again and again while the server is busy."""
    while True:
        try:
            return send()
        except errors.NotAvailable as error:
            if not retry:
                raise
            say(f"{rendering.plain(error)}; waiting")
            time.sleep(error.retry_after_s)


def wait_and_save(client: Client, uuid: str, output: Path | None) -> None:
    """Save a job's pictures when it has ended; the default name is UUID.png."""
    try:
        with progress.display(err) as shown:
            results = client.wait(uuid, on_progress=shown.show)
        for number, result in enumerate(results, 1):
            target = output or Path(f"{uuid}.png")
            if len(results) > 1:
                target = target.with_stem(f"{target.stem}-{number}")
            path = client.save(result, target)
            # What was only made larger was drawn from no seed.
            say("saved to" if result.seed is None else f"seed {result.seed}, saved to")
            print(str(path))
    except KeyboardInterrupt:
        say(f"\njob {uuid} goes on; to fetch it: sde save {uuid}; to end it: sde cancel {uuid}")
        raise typer.Exit(INTERRUPTED) from None
    except (errors.GatewayUnreachable, errors.NotSaved):
        say(f"job {uuid} is not lost; to fetch it: sde save {uuid}")
        raise


def save(context: typer.Context, uuid: Uuid, output: Output = None) -> None:
    """Save a job's pictures; wait for them where it has not ended."""
    if output is not None:
        image_file.check(output)
    wait_and_save(context.obj, uuid, output)
