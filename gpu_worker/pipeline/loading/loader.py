"""Loads a model from a directory, a single file, a GGUF transformer or the hub.

It reads safetensors and GGUF only, and runs no remote code. It knows no device and no request.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoPipelineForText2Image, DiffusionPipeline
from huggingface_hub import snapshot_download

from gpu_worker import model_configs
from gpu_worker.assets import model_library
from gpu_worker.assets.model_library import ModelsError
from gpu_worker.model_configs import clip_tokenizer
from gpu_worker.pipeline import families
from gpu_worker.pipeline.execution import dtypes
from gpu_worker.pipeline.execution.dtypes import Dtypes
from gpu_worker.pipeline.loading import checkpoints, quantization, sources
from gpu_worker.pipeline.loading.asset_files import DEVICE_ERRORS
from gpu_worker.pipeline.loading.sources import Source
from gpu_worker.settings import WorkerSettings

_NO_PLAIN_WEIGHTS = re.compile(r"necessary `safetensors` weights in .*\(variant=None\)", re.S)
"""What diffusers 0.42 says of a repository with pickles or variants of weights only."""


def load(source: Source, settings: WorkerSettings, device: torch.device) -> Any:
    """Return the pipeline, on the CPU. Nothing is downloaded.

    Args:
        device: the device that will compute, which decides the dtypes.

    Raises:
        ModelsError: its files cannot be loaded, or this device or model does not support
            SDE_QUANTIZATION.
    """
    if source.config is None and source.path is not None:
        _check_configuration(source.name, source.path, settings)
    try:
        cls = sources.pipeline_class(source) or _hub_class(source, settings)
        chosen = dtypes.choose(families.family_of(cls), device, source.model.dtype, settings.dtype)
        pipe = _load_quantized(source, settings, chosen, _without_checker(cls, settings))
        dtypes.settle(pipe, chosen)
        return pipe
    except (ModelsError, MemoryError, *DEVICE_ERRORS):
        raise
    except Exception as error:  # the libraries raise many types, and do not name the model
        message = " ".join(str(error).split())[:500] or "its files are not those of a model"
        if source.path is None and _NO_PLAIN_WEIGHTS.search(str(error)):
            message = (
                f"{source.model.source} has no .safetensors weights without a variant; add it to "
                'models.toml with its variant, such as variant = "fp16"'
            )
        raise ModelsError(f"{source.name}: cannot be loaded: {message}") from error


def _check_configuration(name: str, file: Path, settings: WorkerSettings) -> None:
    """Check that the configuration of a single file has been downloaded already.

    Raises:
        ModelsError: it has not.
    """
    from huggingface_hub import try_to_load_from_cache

    config = checkpoints.configuration(file)
    cached = try_to_load_from_cache(config, model_library.INDEX, cache_dir=settings.cache_dir)
    if not isinstance(cached, str):
        beside = file.with_suffix("").name
        raise ModelsError(
            f"{name}: its configuration is not on this machine, and a worker downloads nothing: "
            f"put that of {config} in {beside}/ beside the file"
        )


def _hub_class(source: Source, settings: WorkerSettings) -> Any:
    """Return the pipeline's class of a model on the hub, or its name where it is unknown."""
    if source.path is not None:
        return ""
    folder = snapshot_download(
        source.model.source,
        revision=source.model.revision,
        cache_dir=settings.cache_dir,
        allow_patterns=[model_library.INDEX],
    )
    name = str(sources.index(Path(folder)).get("_class_name", ""))
    return getattr(diffusers, name, name)


def _without_checker(cls: Any, settings: WorkerSettings) -> dict[str, Any]:
    """Return the arguments that leave a model's safety checker out, if the operator wants that."""
    if settings.safety_checker == "on" or isinstance(cls, str):
        return {}
    parameters = inspect.signature(cls).parameters
    values = {"safety_checker": None, "requires_safety_checker": False}
    return {name: value for name, value in values.items() if name in parameters}


def _load_quantized(
    source: Source, settings: WorkerSettings, chosen: Dtypes, options: dict[str, Any]
) -> Any:
    common: dict[str, Any] = {"dtype": chosen.argument, "use_safetensors": True, **options}
    quantized = quantization.config(settings, chosen.default)
    if quantized is None:
        return _load_plain(source, settings, chosen.default, common)
    if source.path is not None and source.path.is_file():
        raise ModelsError(
            f"{source.name}: SDE_QUANTIZATION={settings.quantization} needs a model directory, "
            f"not a single file ({source.path.name})"
        )
    with quantization.current_device(settings):
        common["quantization_config"] = quantized
        pipe = _load_plain(source, settings, chosen.default, common)
    quantization.check_quantized(pipe, source.name, settings.quantization)
    return pipe


def _load_plain(
    source: Source, settings: WorkerSettings, dtype: torch.dtype, common: dict[str, Any]
) -> Any:
    if source.path is not None and source.path.is_file():
        return _single_file(source, settings, dtype, common)
    variant = sources.variant(source)
    if variant is not None:
        common["variant"] = variant
    if source.path is not None:
        return _auto(sources.pipeline_class(source)).from_pretrained(str(source.path), **common)
    return DiffusionPipeline.from_pretrained(
        source.model.source,
        revision=source.model.revision,
        cache_dir=settings.cache_dir,
        local_files_only=True,
        **common,
    )


def _auto(cls: Any) -> Any:
    """Return AutoPipeline where it has a text-to-image class of this family, else the class."""
    from diffusers.pipelines.auto_pipeline import (
        AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
        _get_task_class,
    )

    mapped = _get_task_class(
        AUTO_TEXT2IMAGE_PIPELINES_MAPPING, cls.__name__, throw_error_if_not_exist=False
    )
    return cls if mapped is None else AutoPipelineForText2Image


def _single_file(
    source: Source, settings: WorkerSettings, dtype: torch.dtype, common: dict[str, Any]
) -> Any:
    """Load a single file, which holds weights only.

    Configuration and tokenizer come from the directory beside it, else from this package, else
    from the hub. For a file with a transformer only, the other weights come from there too.
    """
    path, config = str(source.path), source.config
    cls = sources.pipeline_class(source)
    components = sources.index(config) if config is not None else {}
    if "transformer" in components and checkpoints.is_transformer_alone(Path(path)):
        part = getattr(diffusers, components["transformer"][1])
        options: dict[str, Any] = {"config": str(config), "subfolder": "transformer"}
        if path.endswith(".gguf"):
            options["quantization_config"] = diffusers.GGUFQuantizationConfig(compute_dtype=dtype)
        transformer = _from_file(source, part, dtype=dtype, **options)
        return _auto(cls).from_pretrained(str(config), transformer=transformer, **common)
    parts: dict[str, Any] = {}
    if config is not None:
        parts["config"] = str(config)
        if config.is_relative_to(model_configs.FOLDER):
            parts |= clip_tokenizer.tokenizers(config)
    pipe = _from_file(source, cls, dtype=dtype, cache_dir=settings.cache_dir, **parts)
    if source.scheduling:
        scheduler = type(pipe.scheduler)
        own = scheduler.from_config(pipe.scheduler.config, **source.scheduling)
        pipe.register_modules(scheduler=own)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()  # diffusers 0.42 leaves T5 in training mode, with random dropout
    return pipe


def _from_file(source: Source, cls: Any, **options: Any) -> Any:
    """Return a pipeline or a transformer from a single file.

    Raises:
        ModelsError: diffusers cannot read such a file, or weights are missing.
    """
    if not hasattr(cls, "from_single_file"):
        raise ModelsError(f"{source.name}: {cls.__name__} cannot be loaded from a single file")
    try:
        return cls.from_single_file(str(source.path), **options)
    except NotImplementedError as error:  # torch raises it for tensors without data
        raise ModelsError(
            f"{source.name}: the file lacks weights that {cls.__name__} needs"
        ) from error


def silence_libraries() -> None:
    """Disable the libraries' warnings and progress bars."""
    # diffusers logs truncated prompts, and both warn about things that operators cannot change.
    from transformers.utils import logging as transformers_logging

    diffusers.utils.logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
