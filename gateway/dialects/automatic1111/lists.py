"""The lists that clients fill their menus with, and routes that only exist to be asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import falcon
import orjson
import psutil

from gateway.dialects.automatic1111.door import Door, DoorResource
from gateway.dialects.automatic1111.errors import NotBuilt
from gateway.dialects.automatic1111.translation import sampler_table
from gpu_worker.contract.field_types import LATENT

LATENT_MODES = ("Latent",)

LANCZOS = "Lanczos"

_CONTROLNET_VERSION = 2
"""That of the extension's API, whose units are read here."""


class ListResource(DoorResource):
    """Answers GET with what a function returns."""

    def __init__(self, door: Door, value: Callable[[Door], Any]) -> None:
        super().__init__(door)
        self._value = value

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with JSON."""
        resp.data = orjson.dumps(self._value(self._door))


class AbsentResource(DoorResource):
    """Answers 404 with words: the service has nothing for this route."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Refuse. Clients ask with GET whether a route exists."""
        raise NotBuilt("the service describes no images: it has no model for interrogate")

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Refuse."""
        self.on_get(req, resp)


def samplers(door: Door) -> list[dict[str, Any]]:
    """Return the samplers that the model runs with."""
    return [
        {
            "name": each.label,
            "aliases": list(each.aliases),
            "options": {name: str(value) for name, value in each.options.items()},
        }
        for each in sampler_table.available(door.target().model)
    ]


def schedulers(door: Door) -> list[dict[str, Any]]:
    """Return the schedule types that have an effect."""
    return [
        {
            "name": each.name,
            "label": each.label,
            "aliases": list(each.aliases) or None,
            "default_rho": -1.0,
            "need_inner_model": False,
        }
        for each in sampler_table.SCHEDULE_TYPES
        if each.options or each.name == "automatic"
    ]


def upscaler_names(door: Door) -> list[str]:
    """Return A1111's names of the upscalers; the first two need no file."""
    names = door.description().upscalers or []
    return ["None", LANCZOS, *(name for name in names if name not in (LATENT, "lanczos"))]


def upscalers(door: Door) -> list[dict[str, Any]]:
    """Return the upscalers. Clients insert the latent ones after the first."""
    return [
        {"name": name, "model_name": None, "model_path": None, "model_url": None, "scale": 4.0}
        for name in upscaler_names(door)
    ]


def latent_modes(door: Door) -> list[dict[str, str]]:
    """Return the ways to enlarge latents."""
    return [{"name": name} for name in LATENT_MODES]


def vaes(door: Door) -> list[dict[str, str]]:
    """Return the VAEs by name."""
    return [{"model_name": name, "filename": name} for name in door.description().vaes or []]


def loras(door: Door) -> list[dict[str, Any]]:
    """Return the LoRAs by name."""
    return [
        {"name": name, "alias": name, "path": name, "metadata": {}}
        for name in door.description().loras or []
    ]


def embeddings(door: Door) -> dict[str, Any]:
    """Return the embeddings by the word that a prompt has for them."""
    loaded = {
        each.word: {
            "step": None,
            "sd_checkpoint": None,
            "sd_checkpoint_name": None,
            "shape": 0,
            "vectors": each.vectors,
        }
        for each in door.description().embedding_words.values()
    }
    return {"loaded": loaded, "skipped": {}}


def scripts(door: Door) -> dict[str, list[str]]:
    """Return the scripts that are always on: ControlNet where there is a model for it."""
    names = ["controlnet"] if door.description().controlnets else []
    return {"txt2img": names, "img2img": names}


def script_info(door: Door) -> list[dict[str, Any]]:
    """Return the scripts with their arguments, which have no names."""
    return [
        {"name": name, "is_alwayson": True, "is_img2img": kind == "img2img", "args": []}
        for kind, names in scripts(door).items()
        for name in names
    ]


def command_flags(door: Door) -> dict[str, Any]:
    """Return the flags of the web UI's command line that tell a client that the API is on."""
    return {"api": True, "nowebui": False, "listen": False, "share": False}


def memory(door: Door) -> dict[str, Any]:
    """Return bytes of the RAM and of the first worker's GPU."""
    ram = psutil.virtual_memory()
    sizes = [
        (status.gpu_memory_bytes, status.gpu_memory_total_bytes)
        for status in door.services.broker.workers().values()
        if status is not None
    ]
    used, total = next((pair for pair in sizes if pair[1]), (None, None))
    cuda: dict[str, Any] = {"error": "unavailable"}
    if total is not None:
        system = {"free": total - (used or 0), "used": used or 0, "total": total}
        state = {"current": used or 0, "peak": used or 0}
        cuda = {
            "system": system,
            **dict.fromkeys(("active", "allocated", "reserved", "inactive"), state),
            "events": {"retries": 0, "oom": 0},
        }
    return {"ram": {"free": ram.available, "used": ram.used, "total": ram.total}, "cuda": cuda}


def controlnet_models(door: Door) -> dict[str, list[str]]:
    """Return the ControlNets by name."""
    return {"model_list": list(door.description().controlnets or [])}


def queue_status(door: Door) -> dict[str, Any]:
    """Return how many jobs wait, in the form of Gradio's queue."""
    return {"msg": "estimation", "queue_size": door.services.broker.queue_length()}


def _nothing(door: Door) -> list[Any]:
    return []


LISTS: dict[str, Callable[[Door], Any]] = {
    "/sdapi/v1/samplers": samplers,
    "/sdapi/v1/schedulers": schedulers,
    "/sdapi/v1/upscalers": upscalers,
    "/sdapi/v1/latent-upscale-modes": latent_modes,
    "/sdapi/v1/sd-vae": vaes,
    "/sdapi/v1/sd-modules": vaes,
    "/sdapi/v1/loras": loras,
    "/sdapi/v1/embeddings": embeddings,
    "/sdapi/v1/hypernetworks": _nothing,
    "/sdapi/v1/face-restorers": _nothing,
    "/sdapi/v1/realesrgan-models": _nothing,
    "/sdapi/v1/prompt-styles": _nothing,
    "/sdapi/v1/extensions": _nothing,
    "/sdapi/v1/scripts": scripts,
    "/sdapi/v1/script-info": script_info,
    "/sdapi/v1/cmd-flags": command_flags,
    "/sdapi/v1/memory": memory,
    "/controlnet/version": lambda _: {"version": _CONTROLNET_VERSION},
    "/controlnet/model_list": controlnet_models,
    "/controlnet/module_list": lambda _: {"module_list": ["none"], "module_detail": {}},
    "/queue/status": queue_status,
}
"""What GET answers on each path."""
