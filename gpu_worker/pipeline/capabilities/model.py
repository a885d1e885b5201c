"""Says what can be asked of one model, from its class and its configuration: no weights are read.

What it returns is drawn in docs/http-api.md, GET /server/models.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.contract.request import DEFAULT_STEPS
from gpu_worker.pipeline.loading import sources, task_pipelines
from gpu_worker.pipeline.loading.asset_files import SUFFIX, check_header
from gpu_worker.pipeline.loading.sources import Source
from gpu_worker.pipeline.sampling.call_arguments import FIELDS
from gpu_worker.pipeline.schedulers import catalog, dry_run

ALWAYS = ("model", "num_images_per_prompt", "seed", "scheduler", "scheduler_options", "step_log")
ALWAYS_TOO = ("vae", "upscale")
_BY_METHOD = {
    "loras": "load_lora_weights",
    "embeddings": "load_textual_inversion",
    "ip_adapter": "load_ip_adapter",
}
"""Fields that a pipeline knows where its class has this method."""

WITH_CONTROLNETS = "+controlnets"
"""Behind a mode: what it takes while ControlNets lead it, which other classes of diffusers do."""

_LATENT_CHANNELS = 4


def describe_model(source: Source, pipe: Any = None) -> dict[str, Any]:
    """One model; a class that is not known yet leaves out what follows from it.

    Args:
        pipe: the model as it is loaded, for what only the hub knows before.

    Raises:
        ModelsError: its files, or its defaults, are not as they must be.
    """
    said: dict[str, Any] = {"source": source.model.source, "revision": source.model.revision}
    given = _without_empty(source.model.defaults.model_dump())
    found = sources.pipeline_class(source) if pipe is None else type(pipe)
    if found is None:
        return said | {"pipeline": None, "defaults": given}
    _check_files(source)
    own = _own_scheduler(source) if pipe is None else pipe.scheduler
    needs_mask = _needs_mask(source, found) if pipe is None else task_pipelines.needs_mask(pipe)
    modes = task_pipelines.modes(found, needs_mask)
    by_mode = _takes(modes)
    takes = {field for fields in by_mode.values() for field in fields}
    defaults = _defaults(task_pipelines.call_parameters(found))
    names = None
    if own is not None:
        _check_defaults(source, own, found.__name__)
        names = list(catalog.names_for(type(own), found.__name__))
        defaults["scheduler"] = type(own).__name__
    return said | {
        "pipeline": found.__name__,
        "modes": list(modes),
        "takes": [*ALWAYS, *ALWAYS_TOO, *sorted(takes)],
        "takes_by_mode": by_mode,
        "strength": _strengths(modes),
        "schedulers": names,
        "defaults": defaults | given,
    }


def _takes(modes: dict[str, tuple[task_pipelines.Task, Any]]) -> dict[str, list[str]]:
    """Fields by mode, and by mode with ControlNets where the family has them."""
    found = {}
    for mode, (task, cls) in modes.items():
        led = task_pipelines.with_controlnet(task, cls)
        further = {"scheduler_options", *ALWAYS_TOO}
        over = modes.get("img2img", (task, None))[1]
        if over is not None and "strength" in task_pipelines.call_parameters(over):
            further |= {"hires"}
        further |= {"controlnets"} if led is not None else set()
        text = modes.get("txt2img", (task, None))[1]
        further |= {"refiner"} if text is diffusers.StableDiffusionXLPipeline else set()
        found[mode] = sorted(_fields(cls) | further)
        if led is not None:
            found[mode + WITH_CONTROLNETS] = sorted(_fields(led) | further)
    return found


def _fields(cls: Any) -> set[str]:
    known = task_pipelines.call_parameters(cls)
    methods = {field for field, method in _BY_METHOD.items() if hasattr(cls, method)}
    return {field for field in FIELDS if field in known} | methods


def _strengths(modes: dict[str, tuple[task_pipelines.Task, Any]]) -> dict[str, float]:
    """What `strength` is in the modes that know it, unless a request says so."""
    found = {}
    for mode, (_, cls) in modes.items():
        known = task_pipelines.call_parameters(cls).get("strength")
        if mode != "txt2img" and known is not None and isinstance(known.default, int | float):
            found[mode] = float(known.default)
    return found


def _needs_mask(source: Source, found: Any) -> bool:
    if source.config is None:  # of a single file the class follows from its shapes
        return "Inpaint" in found.__name__
    unet = _read(source.config / "unet" / "config.json")
    vae = _read(source.config / "vae" / "config.json")
    vae = vae or _read(source.config / "movq" / "config.json")
    latent = int(vae.get("latent_channels", _LATENT_CHANNELS))
    return "in_channels" in unet and task_pipelines.reads_mask(int(unet["in_channels"]), latent)


def _own_scheduler(source: Source) -> Any | None:
    """As its directory has it; None where there is none to look at."""
    named = sources.index(source.config).get("scheduler") if source.config is not None else None
    cls = catalog.by_name(str(named[1])) if named else None
    if cls is None or source.config is None:
        return None
    return cls.from_config(_read(source.config / "scheduler" / "scheduler_config.json"))


def _read(path: Path) -> dict[str, Any]:
    """A part's configuration; empty where there is none. Raises ModelsError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ModelsError(f"{path.parent.name}/{path.name} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ModelsError(f"{path.parent.name}/{path.name} is no table")
    return found


def _check_files(source: Source) -> None:
    """Raises ModelsError where the header of one of its files is damaged."""
    if source.path is None:
        return
    is_file = source.path.is_file()
    for file in [source.path] if is_file else sorted(source.path.glob(f"*/*{SUFFIX}")):
        if file.suffix == SUFFIX:
            check_header(file, source.name)


def _check_defaults(source: Source, own: Any, pipeline: str) -> None:
    """Raises ModelsError where the description names what its scheduler cannot be."""
    defaults = source.model.defaults
    if defaults.scheduler is None and not defaults.scheduler_options:
        return
    name = defaults.scheduler or type(own).__name__
    steps = defaults.num_inference_steps or DEFAULT_STEPS
    try:
        dry_run.build(own, pipeline, name, defaults.scheduler_options, steps)
    except dry_run.SchedulerRejected as unfit:
        raise ModelsError(f"{source.name}: defaults.{unfit}") from None


def _defaults(known: dict[str, Any]) -> dict[str, Any]:
    wanted = {"num_inference_steps": DEFAULT_STEPS, "guidance_scale": None}
    found = {name: known[name].default for name in wanted if name in known}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _without_empty(defaults: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in defaults.items() if value not in (None, {})}
