"""Describes one model from its class and its configuration. No weights are read.

docs/http-api.md describes the result, GET /server/models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.contract.capabilities import WITH_CONTROLNETS, ModelCapabilities, ModelDefaults
from gpu_worker.contract.checks import Mode
from gpu_worker.contract.field_types import DEFAULT_STEPS
from gpu_worker.contract.request import GenerationRequest, metadata_of
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.capabilities import model_files
from gpu_worker.pipeline.families import call_parameters, family_of, is_inpainting
from gpu_worker.pipeline.loading import sources, task_pipelines
from gpu_worker.pipeline.loading.sources import Source
from gpu_worker.pipeline.schedulers import catalog, dry_run
from gpu_worker.pipeline.schedulers.dry_run import Pass

_LATENT_CHANNELS = 4


def describe_model(source: Source, pipe: Any = None) -> ModelCapabilities:
    """Describe one model. If its class is unknown, everything that depends on it is left out.

    Args:
        pipe: the loaded model, which tells what only the hub knows before.

    Raises:
        ModelsError: its files or its defaults are invalid.
    """
    model = source.model
    origin: dict[str, Any] = {"source": model.source, "revision": model.revision}
    own_defaults = _without_empty(model.defaults.model_dump())
    cls = sources.pipeline_class(source) if pipe is None else type(pipe)
    if cls is None:
        return ModelCapabilities(**origin, pipeline=None, defaults=ModelDefaults(**own_defaults))
    model_files.check(source)
    scheduler = _own_scheduler(source) if pipe is None else pipe.scheduler
    needs_mask = _needs_mask(source, cls) if pipe is None else task_pipelines.needs_mask(pipe)
    modes = task_pipelines.modes(cls, needs_mask)
    by_mode = _takes(modes)
    defaults = _defaults(call_parameters(cls))
    names = None
    if scheduler is not None:
        _check_defaults(source, scheduler, cls.__name__)
        names = list(catalog.names_for(type(scheduler), cls.__name__))
        defaults["scheduler"] = type(scheduler).__name__
    words = sources.vocabulary_of(source)
    vocabulary = {} if words is None else {"vocabulary": list(words.things)}
    return ModelCapabilities(
        **origin,
        pipeline=cls.__name__,
        modes=list(modes),
        takes=sorted(_fields_of_any() | {name for names in by_mode.values() for name in names}),
        takes_by_mode=by_mode,
        strength=_strengths(modes),
        schedulers=names,
        weighted_prompts=family_of(cls).weighted_prompts,
        defaults=ModelDefaults(**defaults | own_defaults),
    ).model_copy(update=vocabulary)


def _fields_of_any() -> set[str]:
    """Return the fields that every pipeline takes."""
    return {name for name in GenerationRequest.model_fields if metadata_of(name).takes == "any"}


def _takes(modes: dict[Mode, Any]) -> dict[str, list[str]]:
    """Return the fields of each mode, also with ControlNets if the family has them."""
    takes: dict[str, list[str]] = {}
    metadata = {name: metadata_of(name) for name in GenerationRequest.model_fields}
    img2img = modes.get("img2img")
    for mode, cls in modes.items():
        controlnet_class = task_pipelines.with_controlnet(mode, cls)
        structures = {
            "img2img": img2img is not None and "strength" in call_parameters(img2img),
            "controlnet": controlnet_class is not None,
            "ensemble": "txt2img" in modes and family_of(cls).ensemble,
        }
        of_mode = {
            name
            for name, each in metadata.items()
            if structures.get(str(each.takes)) or (each.takes == "any" and not each.any_pipeline)
        }
        takes[mode] = sorted(_fields(cls) | of_mode)
        if controlnet_class is not None:
            takes[mode + WITH_CONTROLNETS] = sorted(_fields(controlnet_class) | of_mode)
    return takes


def _fields(cls: Any) -> set[str]:
    """Return the fields that a class takes in its call or with a method of its own."""
    parameters = call_parameters(cls)
    about = {field: metadata_of(field) for field in GenerationRequest.model_fields}
    return {
        field
        for field, each in about.items()
        if (each.takes == "call" and field in parameters)
        or (each.method is not None and hasattr(cls, each.method))
    }


def _strengths(modes: dict[Mode, Any]) -> dict[str, float]:
    """Return the default of `strength` in each mode that has it, also with ControlNets."""
    classes = {str(mode): cls for mode, cls in modes.items() if mode != "txt2img"}
    for mode, cls in modes.items():
        with_net = task_pipelines.with_controlnet(mode, cls) if mode != "txt2img" else None
        classes |= {mode + WITH_CONTROLNETS: with_net} if with_net is not None else {}
    defaults = {name: _default(cls, "strength") for name, cls in classes.items()}
    return {
        name: float(default)
        for name, default in defaults.items()
        if isinstance(default, int | float)
    }


def _default(cls: Any, name: str) -> Any:
    """Return the default of a parameter of a class's call; None if it has no such parameter."""
    parameter = call_parameters(cls).get(name)
    return None if parameter is None else parameter.default


def _needs_mask(source: Source, cls: Any) -> bool:
    if source.config is None:  # the class of a single file follows from its shapes
        return is_inpainting(cls)
    unet = _read(source.config / "unet" / "config.json")
    vae = _read(source.config / "vae" / "config.json")
    vae = vae or _read(source.config / "movq" / "config.json")
    latent = int(vae.get("latent_channels", _LATENT_CHANNELS))
    return "in_channels" in unet and task_pipelines.reads_mask(int(unet["in_channels"]), latent)


def _own_scheduler(source: Source) -> Any | None:
    """Return the scheduler in the model's directory, or None."""
    named = sources.index(source.config).get("scheduler") if source.config is not None else None
    cls = catalog.by_name(str(named[1])) if named else None
    if cls is None or source.config is None:
        return None
    config = _read(source.config / "scheduler" / "scheduler_config.json")
    return cls.from_config(config, **source.scheduling)


def _read(path: Path) -> dict[str, Any]:
    """Return the configuration of a part, or an empty one. Raises ModelsError."""
    try:
        return sources.read_config(path, f"{path.parent.name}/{path.name}")
    except FileNotFoundError:
        return {}


def _check_defaults(source: Source, own: Any, pipeline: str) -> None:
    """Raises ModelsError if the defaults name a scheduler or option that does not work."""
    defaults = source.model.defaults
    if defaults.scheduler is None and not defaults.scheduler_options:
        return
    name = defaults.scheduler or type(own).__name__
    steps = defaults.num_inference_steps or DEFAULT_STEPS
    try:
        dry_run.build(own, pipeline, name, defaults.scheduler_options, [Pass(steps)])
    except Unsupported as error:
        raise ModelsError(f"{source.name}: defaults.{error}") from None


def _defaults(parameters: dict[str, Any]) -> dict[str, Any]:
    fallbacks = {"num_inference_steps": DEFAULT_STEPS, "guidance_scale": None}
    defaults = {name: parameters[name].default for name in fallbacks if name in parameters}
    return {name: value for name, value in defaults.items() if isinstance(value, int | float)}


def _without_empty(defaults: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in defaults.items() if value not in (None, {})}
