"""Lists the routes of AUTOMATIC1111's API."""

from __future__ import annotations

from typing import Any

import falcon

from gateway.dialects.automatic1111.door import Door
from gateway.dialects.automatic1111.errors import shape
from gateway.dialects.automatic1111.generation import Img2ImgResource, Txt2ImgResource
from gateway.dialects.automatic1111.lists import LISTS, AbsentResource, ListResource
from gateway.dialects.automatic1111.options import (
    CheckpointsResource,
    MemoryCommandResource,
    OptionsResource,
    RefreshResource,
)
from gateway.dialects.automatic1111.png_info import PngInfoResource
from gateway.dialects.automatic1111.progress import (
    InternalProgressResource,
    InterruptResource,
    ProgressResource,
)
from gateway.dialects.automatic1111.upscaling import ExtraBatchResource, ExtraSingleResource
from gateway.http.error_shapes import Shape
from gateway.services import Services

SHAPES: dict[str, Shape] = dict.fromkeys(
    ("/sdapi/", "/controlnet/", "/internal/", "/queue/"), shape
)
"""The beginnings of the paths, and how their errors are written."""

PREFIX = "/sdapi/v1"


def add_routes(app: falcon.App[Any, Any], services: Services, max_body_bytes: int) -> None:
    """Add the routes.

    Args:
        max_body_bytes: a larger body is refused with 413.
    """
    door = Door(services, max_body_bytes)
    for path, value in LISTS.items():
        app.add_route(path, ListResource(door, value))
    _add_commands(app, door)
    app.add_route(f"{PREFIX}/txt2img", Txt2ImgResource(door))
    app.add_route(f"{PREFIX}/img2img", Img2ImgResource(door))
    app.add_route(f"{PREFIX}/extra-single-image", ExtraSingleResource(door))
    app.add_route(f"{PREFIX}/extra-batch-images", ExtraBatchResource(door))
    app.add_route(f"{PREFIX}/png-info", PngInfoResource(door))
    app.add_route(f"{PREFIX}/interrogate", AbsentResource(door))


def _add_commands(app: falcon.App[Any, Any], door: Door) -> None:
    """Add what reads and changes the state: options, models, progress, the end of a job."""
    app.add_route(f"{PREFIX}/options", OptionsResource(door))
    app.add_route(f"{PREFIX}/sd-models", CheckpointsResource(door))
    for name in ("checkpoints", "vae", "loras", "embeddings"):
        app.add_route(f"{PREFIX}/refresh-{name}", RefreshResource(door))
    app.add_route(f"{PREFIX}/unload-checkpoint", MemoryCommandResource(door, unloads=True))
    app.add_route(f"{PREFIX}/reload-checkpoint", MemoryCommandResource(door, unloads=False))
    app.add_route(f"{PREFIX}/progress", ProgressResource(door))
    app.add_route("/internal/progress", InternalProgressResource(door))
    app.add_route(f"{PREFIX}/interrupt", InterruptResource(door, b"{}"))
    app.add_route(f"{PREFIX}/skip", InterruptResource(door, b"null"))
