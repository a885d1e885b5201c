"""`sde verify` and `sde diff`: whether a picture can be made again, and where two runs part."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from sde_client import comparison, errors
from sde_client.api import Client
from sde_client.commands import progress, rendering
from sde_client.commands.console import Uuid, err, say
from sde_client.commands.generate import Retry, fetch_results
from sde_client.comparison import Comparison, Distance
from sde_client.records import Result

Image = Annotated[
    int | None, typer.Option("--image", min=1, help="Of several pictures this one, from 1.")
]


def register(app: typer.Typer) -> None:
    """Add them to the `sde` command."""
    app.command()(verify)
    app.command()(diff)


def verify(
    context: typer.Context,
    uuid: Uuid,
    image: Image = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the repeat's result.")] = False,
    retry: Retry = False,
) -> None:
    """Make a result again and compare the pixels: exit code 0 when they are identical, else 1.

    When they are not, it says what else differs between then and now, and how far the pixels are.
    """
    client: Client = context.obj
    same = True
    found = fetch_results(client, uuid)
    for number, result in _chosen(found, image):
        compared = _repeat(client, result, keep, retry)
        label = f"picture {number}: " if len(found) > 1 else ""
        print(f"{label}{'identical' if compared.identical else 'differs'}")
        if keep:
            say(f"the repeat is {compared.second.uuid}")
        _print_differences(compared.differences)
        if not compared.identical:
            same = False
            if result.extra.get("steps_log"):
                _print_divergence(result, compared.second)
            _print_distance(compared)
    raise typer.Exit(0 if same else 1)


def diff(context: typer.Context, first: Uuid, second: Uuid, image: Image = None) -> None:
    """Say what differs between two results and at which step they part (--step-log).

    Exit code 0 when the pixels are the same, else 1.
    """
    client: Client = context.obj
    pair = [_chosen(fetch_results(client, uuid), image or 1)[0][1] for uuid in (first, second)]
    compared = comparison.compare(pair[0], pair[1])
    _print_differences(compared.differences)
    _print_divergence(pair[0], pair[1])
    if compared.identical:
        print("the pixels are identical")
    else:
        _print_distance(compared)
    raise typer.Exit(0 if compared.identical else 1)


def _chosen(found: list[Result], image: int | None) -> list[tuple[int, Result]]:
    numbered = list(enumerate(found, 1))
    chosen = numbered if image is None else numbered[image - 1 : image]
    if not chosen:
        raise errors.NoImage(f"{found[0].uuid} has {len(found)} pictures, not {image}")
    return chosen


def _repeat(client: Client, result: Result, keep: bool, retry: bool) -> Comparison:
    while True:
        try:
            with progress.display(err) as shown:
                return client.verify(result, keep=keep, on_progress=shown.show)
        except errors.NotAvailable as error:
            if not retry:
                raise
            say(f"{rendering.plain(error)}; waiting")
            time.sleep(error.retry_after_s)


def _print_differences(differences: Iterable[tuple[str, Any, Any]]) -> None:
    for name, then, now in differences:
        print(f"{rendering.plain(name)}: {_shown(then)} -> {_shown(now)}")


def _print_divergence(first: Result, second: Result) -> None:
    try:
        divergence = comparison.divergence(first, second)
    except ValueError as error:
        say(f"where they part is not known: {rendering.plain(error)}")
        return
    if divergence is None:
        print("no step differs")
    else:
        print(
            f"they diverge at step {divergence.step}: {_step(divergence.first, divergence.second)}"
        )


def _shown(value: object) -> str:
    return "(not said)" if value is None else rendering.plain(value)


def _print_distance(compared: Comparison) -> None:
    distance = compared.distance
    if distance is None:
        print("the pixels differ; how far is not known (another size, or Pillow is not installed)")
    else:
        print(_distance(distance))


def _distance(distance: Distance) -> str:
    if math.isinf(distance.psnr_db):
        return "the colours are the same; the mode is not"
    return f"the pixels differ: PSNR {distance.psnr_db:.1f} dB, largest {distance.largest} of 255"


def _step(first: dict[str, Any] | None, second: dict[str, Any] | None) -> str:
    if first is None or second is None:
        return "one has no such step"
    said = [
        f"{name} {_shown(first.get(name))} -> {_shown(second.get(name))}"
        for name in ("timestep", "sigma")
        if first.get(name) != second.get(name)
    ]
    if said:
        return ", ".join(said)
    sigma = first.get("sigma")
    noise = f", sigma {sigma:.4f}" if isinstance(sigma, int | float) else ""
    return f"other latents at timestep {_shown(first.get('timestep'))}{noise}"
