"""Says what can be asked of each model, from its class and its index: no weights are read.

What it returns is drawn in docs/http-api.md, GET /server/models.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers

from gpu_worker.models import Library, ModelsError
from gpu_worker.pipeline import derived, sources
from gpu_worker.pipeline.derived import Task
from gpu_worker.pipeline.modes import FIELDS
from gpu_worker.pipeline.sources import Source
from gpu_worker.pipeline.upscalers import LANCZOS, LATENT
from gpu_worker.request import DEFAULT_STEPS
from gpu_worker.settings import WorkerSettings

ALWAYS = ("model", "num_images_per_prompt", "seed", "scheduler", "scheduler_options", "step_log")
ALWAYS_TOO = ("vae", "upscale")
_BY_METHOD = {
    "loras": "load_lora_weights",
    "embeddings": "load_textual_inversion",
    "ip_adapter": "load_ip_adapter",
}
"""Fields that a pipeline knows where its class has this method."""

_TASKS: dict[str, Task] = {"txt2img": "text", "img2img": "image", "inpaint": "inpaint"}


def everything(
    library: Library, settings: WorkerSettings, loaded: str | None, found: Any = None
) -> dict[str, Any]:
    """All models, and the names of everything else.

    Args:
        loaded: the name of the model in memory.
        found: its class, for one that only the hub knows before it is loaded.
    """
    described = {}
    for name in sources.names(library, settings):
        try:
            source = sources.find(name, library, settings)
            own = found if name == loaded else None
            described[name] = one(source, own) | {"loaded": name == loaded}
        except (ModelsError, sources.ModelNotFound, OSError) as error:
            described[name] = {"loaded": False, "error": str(error)}
    return {
        "default": settings.model,
        "models": described,
        "loras": sorted(library.loras),
        "embeddings": sorted(library.embeddings),
        "controlnets": sorted(library.controlnets),
        "ip_adapters": sorted(library.ip_adapters),
        "vaes": sorted(library.vaes),
        "upscalers": [LATENT, LANCZOS, *sorted(library.upscalers)],
        "refiners": sorted(library.refiners),
    }


def one(source: Source, found: Any = None) -> dict[str, Any]:
    """One model; a class that is not known yet leaves out what follows from it."""
    said: dict[str, Any] = {"source": source.model.source, "revision": source.model.revision}
    found = found or sources.pipeline_class(source)
    if found is None:
        return said | {"pipeline": None, "defaults": _set(source.model.defaults.model_dump())}
    classes = {mode: derived.class_for(task, found) for mode, task in _TASKS.items()}
    known = {mode: derived.parameters(each) for mode, each in classes.items() if each is not None}
    takes = {field for each in known.values() for field in each if field in FIELDS}
    takes |= {field for field, method in _BY_METHOD.items() if hasattr(found, method)}
    if "img2img" in known:
        takes.add("hires")
    if classes["txt2img"] is diffusers.StableDiffusionXLPipeline:
        takes.add("refiner")
    if _takes_controlnets(found):
        takes.add("controlnets")
    return said | {
        "pipeline": found.__name__,
        "modes": list(known),
        "takes": [*ALWAYS, *ALWAYS_TOO, *sorted(takes)],
        "schedulers": _schedulers(source.config),
        "defaults": _defaults(derived.parameters(found)) | _set(source.model.defaults.model_dump()),
    }


def _takes_controlnets(found: Any) -> bool:
    """AutoPipeline knows the family's ControlNet class under its name."""
    name = found.__name__.replace("Pipeline", "ControlNetPipeline")
    return any(each.__name__ == name for each in derived.MAPPINGS["text"].values())


def _schedulers(config: Path | None) -> list[str] | None:
    """Class names: the model's own, and those that diffusers calls compatible with it."""
    named = sources.index(config).get("scheduler") if config is not None else None
    own = getattr(diffusers, str(named[1]), None) if named else None
    if own is None:
        return None
    others = getattr(own, "_compatibles", [])
    return sorted({own.__name__, *(name for name in others if hasattr(diffusers, name))})


def _defaults(known: dict[str, inspect.Parameter]) -> dict[str, Any]:
    wanted = {"num_inference_steps": DEFAULT_STEPS, "guidance_scale": None}
    found = {name: known[name].default for name in wanted if name in known}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _set(defaults: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in defaults.items() if value not in (None, {})}
