"""The `sde verify` and `sde diff` commands, which compare two runs and their images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from sde_client import comparison, errors
from sde_client.api import Client
from sde_client.commands import progress, rendering
from sde_client.commands.console import Uuid, err, say
from sde_client.commands.generate import Retry, fetch_results, send_with_retry
from sde_client.commands.handles import resolve
from sde_client.comparison import Comparison, Distance
from sde_client.records import Result

Image = Annotated[
    int | None, typer.Option("--image", min=1, help="Number of the image in the job, from 1.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to `sde`."""
    app.command()(verify)
    app.command()(diff)


def verify(
    context: typer.Context,
    uuid: Uuid,
    image: Image = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the result of the new run.")] = False,
    retry: Retry = False,
) -> None:
    """Generate a result again and compare the pixels. Exit code 0 if identical, else 1.

    If they differ, the output lists the changed metadata and the distance between the pixels.
    """
    client: Client = context.obj
    identical = True
    results = fetch_results(client, resolve(client, uuid))
    for number, result in _select(results, image):
        repeat = _repeat(client, result, keep, retry)
        label = f"image {number}: " if len(results) > 1 else ""
        print(f"{label}{'identical' if repeat.identical else 'differs'}")
        if keep:
            say(f"the new result is {repeat.second.uuid}")
        _print_differences(repeat.differences)
        if not repeat.identical:
            identical = False
            if result.extra.get("steps_log"):
                _print_divergence(result, repeat.second)
            _print_distance(repeat)
    raise typer.Exit(0 if identical else 1)


def diff(context: typer.Context, first: Uuid, second: Uuid, image: Image = None) -> None:
    """Show how two results differ and at which step they diverge (needs --step-log).

    Exit code 0 if the pixels are identical, else 1.
    """
    client: Client = context.obj
    pair = [
        _select(fetch_results(client, resolve(client, uuid)), image or 1)[0][1]
        for uuid in (first, second)
    ]
    pair_comparison = comparison.compare(pair[0], pair[1])
    _print_differences(pair_comparison.differences)
    _print_divergence(pair[0], pair[1])
    if pair_comparison.identical:
        print("the pixels are identical")
    else:
        _print_distance(pair_comparison)
    raise typer.Exit(0 if pair_comparison.identical else 1)


def _select(results: list[Result], image: int | None) -> list[tuple[int, Result]]:
    """Return the results with their numbers from 1: all of them, or the `image`-th one."""
    numbered = list(enumerate(results, 1))
    selection = numbered if image is None else numbered[image - 1 : image]
    if not selection:
        raise errors.NoImage(
            f"job {results[0].uuid} has no image {image}; its number of images is {len(results)}"
        )
    return selection


def _repeat(client: Client, result: Result, keep: bool, retry: bool) -> Comparison:
    def verify() -> Comparison:
        with progress.display(err) as display:
            return client.verify(result, keep=keep, on_progress=display.show)

    return send_with_retry(verify, retry)


def _print_differences(differences: Iterable[tuple[str, Any, Any]]) -> None:
    for name, then, now in differences:
        print(f"{rendering.plain(name)}: {_format(then)} -> {_format(now)}")


def _print_divergence(first: Result, second: Result) -> None:
    try:
        divergence = comparison.divergence(first, second)
    except ValueError as error:
        say(f"cannot tell at which step they diverge: {rendering.plain(error)}")
        return
    if divergence is None:
        print("no step differs")
    else:
        print(
            f"they diverge at step {divergence.step}: {_step(divergence.first, divergence.second)}"
        )


def _format(value: object) -> str:
    return "(none)" if value is None else rendering.plain(value)


def _print_distance(pair: Comparison) -> None:
    distance = pair.distance
    if distance is None:
        print("the pixels differ; the sizes differ or Pillow is missing, so there is no distance")
    else:
        print(_distance(distance))


def _distance(distance: Distance) -> str:
    if math.isinf(distance.psnr_db):
        return "the colors are the same, but the image modes differ"
    return (
        f"the pixels differ: PSNR {distance.psnr_db:.1f} dB, "
        f"largest difference {distance.largest} of 255"
    )


def _step(first: dict[str, Any] | None, second: dict[str, Any] | None) -> str:
    if first is None or second is None:
        return "one run has no such step"
    changes = [
        f"{name} {_format(first.get(name))} -> {_format(second.get(name))}"
        for name in ("timestep", "sigma")
        if first.get(name) != second.get(name)
    ]
    if changes:
        return ", ".join(changes)
    sigma = first.get("sigma")
    noise = f", sigma {sigma:.4f}" if isinstance(sigma, int | float) else ""
    return f"the latents differ at timestep {_format(first.get('timestep'))}{noise}"
