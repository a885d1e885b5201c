"""The options, the models, and which of them is in memory: /options, /sd-models, /refresh-*."""

from __future__ import annotations

from typing import Any, ClassVar

import falcon
import orjson

from gateway.access.principal import Scope
from gateway.dialects.automatic1111.door import Door, DoorResource
from gateway.http.json_body import json_body

MAX_BODY_BYTES = 1 << 20
"""A client may send all options back."""

_FIXED: dict[str, Any] = {
    "samples_format": "png",
    "sd_checkpoint_hash": "",
    "sd_hypernetwork": "None",
    "sd_lora": "None",
    "eta_noise_seed_delta": 0,
    "initial_noise_multiplier": 1.0,
    "img2img_background_color": "#ffffff",
    "randn_source": "CPU",
    "show_progress_every_n_steps": 1,
    "live_previews_enable": True,
}
"""Options that clients read. They can be sent back, and nothing changes them."""


class OptionsResource(DoorResource):
    """GET and POST /sdapi/v1/options."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with a flat object."""
        options = self._door.options
        resp.data = orjson.dumps(
            {
                "sd_model_checkpoint": self._door.current_title(),
                "sd_vae": options.vae,
                "CLIP_stop_at_last_layers": options.clip_layers,
                **_FIXED,
            }
        )

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Set those that have an effect here, and answer null. The others are ignored."""
        body = json_body(req, MAX_BODY_BYTES)
        if isinstance(body, dict):
            self._door.set_options(req, body)
        resp.data = b"null"


class CheckpointsResource(DoorResource):
    """GET /sdapi/v1/sd-models."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the models that can be loaded, the default one first."""
        resp.data = orjson.dumps([each.json() for each in self._door.target().models])


class RefreshResource(DoorResource):
    """POST /sdapi/v1/refresh-checkpoints and its like. The workers see changes by themselves."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer null."""
        resp.data = b"null"


class MemoryCommandResource(DoorResource):
    """POST /sdapi/v1/unload-checkpoint and /reload-checkpoint: idle workers do it."""

    scopes: ClassVar = {"POST": Scope.ADMIN}

    def __init__(self, door: Door, *, unloads: bool) -> None:
        super().__init__(door)
        self._unloads = unloads

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer an empty object. A busy worker goes on with its job and its model."""
        if self._unloads:
            self._door.unload()
        else:
            self._door.load()
        resp.data = b"{}"
