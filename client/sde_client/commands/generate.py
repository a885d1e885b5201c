"""The `sde generate` and `sde save` commands, which generate and fetch images."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import uuid4

import typer

from sde_client import errors
from sde_client.api import Client
from sde_client.commands import option_parsers, rendering
from sde_client.commands.console import INTERRUPTED, Uuid, say
from sde_client.commands.handles import resolve
from sde_client.commands.saving import STDOUT, Force, Output, check_output, wait_and_save
from sde_client.records import Result

T = TypeVar("T")

Retry = Annotated[bool, typer.Option("--retry", help="Wait while the server's queue is full.")]
NoQueue = Annotated[bool, typer.Option("--no-queue", help="Fail if the job cannot start at once.")]
Key = Annotated[
    str | None, typer.Option(help="Idempotency key: the same key always gets the same job.")
]

LORA = option_parsers.named("weight")
CONTROLNET = option_parsers.named_image(
    "conditioning_scale", {"start": "guidance_start", "end": "guidance_end"}
)
IP_ADAPTER = option_parsers.named_image("scale")
HIRES = option_parsers.settings(
    {"scale": option_parsers.number, "upscaler": str},
    {
        "strength": ("strength", option_parsers.number),
        "steps": ("num_inference_steps", option_parsers.integer),
    },
)
REFINER = option_parsers.named("switch_at")


def register(app: typer.Typer) -> None:
    """Add these commands to `sde`."""
    app.command()(generate)
    app.command()(save)


def generate(
    context: typer.Context,
    prompt: Annotated[
        str | None,
        typer.Argument(help="What the image should show; - reads one prompt per line from stdin."),
    ] = None,
    negative: Annotated[
        str | None, typer.Option(help="Negative prompt: what the image should not show.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Number of denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale.")] = None,
    size: Annotated[
        Any,
        typer.Option(
            parser=option_parsers.size, metavar="WxH", help="Size in pixels, such as 512x768."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Random seed; the same seed gives the same image.")
    ] = None,
    images: Annotated[int | None, typer.Option("-n", "--images", help="Number of images.")] = None,
    model: Annotated[str | None, typer.Option(help="A model listed by `sde models`.")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="A scheduler: Euler a, dpmpp_2m_karras, or a class of diffusers."),
    ] = None,
    scheduler_option: Annotated[
        list[Any] | None,
        typer.Option(
            help="A setting of the scheduler; repeatable.",
            parser=option_parsers.scheduler_option,
            metavar="K=V",
        ),
    ] = None,
    clip_skip: Annotated[
        int | None, typer.Option(help="Number of text encoder layers to skip.")
    ] = None,
    eta: Annotated[float | None, typer.Option(help="Eta of DDIM, 0 to 1.")] = None,
    guidance_rescale: Annotated[
        float | None, typer.Option(help="Guidance rescale factor, 0 to 1.")
    ] = None,
    true_cfg_scale: Annotated[
        float | None, typer.Option(help="Guidance of models like Qwen-Image, 0 to 50.")
    ] = None,
    lora: Annotated[
        list[Any] | None,
        typer.Option(help="A LoRA to apply; repeatable.", parser=LORA, metavar="NAME[:WEIGHT]"),
    ] = None,
    embedding: Annotated[
        list[str] | None,
        typer.Option(help="A textual inversion to load; repeatable.", metavar="NAME"),
    ] = None,
    vae: Annotated[
        str | None, typer.Option(help="A VAE to use instead of the model's own.", metavar="NAME")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="Input image for image-to-image.", metavar="FILE")
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="Inpainting mask; white areas are repainted.", metavar="FILE"),
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="How much to change the input image, 0 to 1.")
    ] = None,
    controlnet: Annotated[
        list[Any] | None,
        typer.Option(
            help="A ControlNet and its control image; repeatable.",
            parser=CONTROLNET,
            metavar="NAME:FILE[:SCALE][:start=X][:end=X]",
        ),
    ] = None,
    ip_adapter: Annotated[
        Any,
        typer.Option(
            help="An IP-Adapter and its reference image.",
            parser=IP_ADAPTER,
            metavar="NAME:FILE[:SCALE]",
        ),
    ] = None,
    hires: Annotated[
        Any,
        typer.Option(
            help="Hires fix: a second pass at a larger size.",
            parser=HIRES,
            metavar="SCALE[:UPSCALER][:strength=X][:steps=N]",
        ),
    ] = None,
    refiner: Annotated[
        Any,
        typer.Option(
            help="A refiner model for the last steps.",
            parser=REFINER,
            metavar="NAME[:SWITCH_AT]",
        ),
    ] = None,
    step_log: Annotated[
        bool, typer.Option("--step-log", help="Record every step for `sde diff`.")
    ] = False,
    like: Annotated[
        str | None,
        typer.Option(metavar="JOB", help="Repeat that result; other options override its values."),
    ] = None,
    output: Output = None,
    force: Force = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Print the uuid and exit at once.")
    ] = False,
    no_queue: NoQueue = False,
    retry: Retry = False,
    key: Key = None,
) -> None:
    """Generate images and save them. Ctrl-C leaves the job running."""
    if prompt is None and like is None:
        raise typer.BadParameter("give a PROMPT, or --like JOB to repeat a result")
    check_output(output)
    client: Client = context.obj
    options = {
        "prompt": prompt,
        "negative_prompt": negative,
        "model": model,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        **dict(zip(("width", "height"), size or (), strict=False)),
        "seed": seed,
        "num_images_per_prompt": images,
        "scheduler": scheduler,
        "scheduler_options": dict(scheduler_option or []) or None,
        "clip_skip": clip_skip,
        "eta": eta,
        "guidance_rescale": guidance_rescale,
        "true_cfg_scale": true_cfg_scale,
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
    parameters = _fetch_parameters(client, resolve(client, like)) if like is not None else {}
    parameters |= {name: value for name, value in options.items() if value is not None}
    requests = [parameters] if prompt != "-" else _each_prompt(parameters, key, output, force)
    for uuid in _submit_each(client, requests, not no_queue, retry, key):
        if no_wait:
            print(uuid)
        else:
            wait_and_save(client, uuid, output, force)


def _each_prompt(
    parameters: dict[str, Any], key: str | None, output: Path | None, force: bool
) -> list[dict[str, Any]]:
    """Return one request for each line of standard input that is not blank."""
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"standard input is not UTF-8: {error.reason}") from None
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise typer.BadParameter("standard input has no prompt")
    if key is not None and len(prompts) > 1:
        raise typer.BadParameter("--key names one job, but standard input has several prompts")
    if output == STDOUT and len(prompts) > 1:
        raise typer.BadParameter("-o - writes one image, but standard input has several prompts")
    if output is not None and force and len(prompts) > 1:
        raise typer.BadParameter("--force would replace each image of -o FILE by the next one")
    return [parameters | {"prompt": prompt} for prompt in prompts]


def _submit_each(
    client: Client, requests: list[dict[str, Any]], queue: bool, retry: bool, key: str | None
) -> Iterator[str]:
    """Submit the requests one after another and yield their uuids.

    With several of them, each but the first waits while the server is busy with another.
    """
    for index, request in enumerate(requests):
        send = partial(_submit, client, request, queue)
        yield send_with_key(send, key, retry=retry or index > 0)


def _submit(client: Client, request: dict[str, Any], queue: bool, key: str) -> str:
    return client.submit(**request, idempotency_key=key, queue=queue)


def send_with_key(send: Callable[[str], str], key: str | None, *, retry: bool) -> str:
    """Return the result of `send(key)`, with a new key when `key` is None.

    `retry` repeats the call while the server is busy.

    After Ctrl-C it is unknown whether the server accepted the job. The message then names the key,
    because sending the request again with that key cannot create a second job.
    """
    key = key or str(uuid4())
    try:
        return send_with_retry(partial(send, key), retry)
    except KeyboardInterrupt:
        say(
            "\nthe server may have accepted the job; "
            f"send that request again with --key {key} to get that job and no second one"
        )
        raise typer.Exit(INTERRUPTED) from None


def _fetch_parameters(client: Client, uuid: str) -> dict[str, Any]:
    """Return parameters that generate all images of a job again."""
    results = fetch_results(client, uuid, data=False)
    return {**client.to_request(results[0]), "num_images_per_prompt": len(results)}


def fetch_results(client: Client, uuid: str, data: bool = True) -> list[Result]:
    """Return a job's results.

    Raises:
        UnknownJob: the server does not know the job.
        Deleted: its results have been deleted.
        Conflict: it has no result yet.
    """
    results = list(client.results(uuid, data=data))
    if not results:
        raise errors.Conflict(f"job {uuid} is {client.job(uuid).state} and has no result yet")
    return results


def send_with_retry(send: Callable[[], T], retry: bool) -> T:
    """Return the result of `send()`; `retry` repeats the call while the server is busy."""
    while True:
        try:
            return send()
        except errors.NotAvailable as error:
            if not retry:
                raise
            say(f"{rendering.plain(error)}; waiting")
            time.sleep(error.retry_after_s)


def save(context: typer.Context, uuid: Uuid, output: Output = None, force: Force = False) -> None:
    """Save a job's images, waiting for the job to end if necessary."""
    check_output(output)
    client: Client = context.obj
    wait_and_save(client, resolve(client, uuid), output, force)
