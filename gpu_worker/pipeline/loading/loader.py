"""Loads a model that was found: a directory, a single file, a GGUF transformer, or from the hub.

safetensors and GGUF only, never remote code. Knows no device and no request.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoPipelineForText2Image, DiffusionPipeline

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.pipeline.loading import checkpoints, quantization, sources
from gpu_worker.pipeline.loading.asset_files import DEVICE_ERRORS
from gpu_worker.pipeline.loading.sources import Source
from gpu_worker.settings import WorkerSettings


def load(source: Source, settings: WorkerSettings, dtype: torch.dtype) -> Any:
    """The pipeline, on the CPU.

    Raises:
        ModelsError: its files are not as they must be, or SDE_QUANTIZATION asks for what cannot
            be, of this device or of this model.
    """
    try:
        return _load_quantized(source, settings, dtype)
    except (ModelsError, MemoryError, *DEVICE_ERRORS):
        raise
    except Exception as error:  # the libraries fail in many ways, and name no model
        said = " ".join(str(error).split()) or type(error).__name__
        raise ModelsError(f"{source.name}: cannot be loaded: {said}") from error


def _load_quantized(source: Source, settings: WorkerSettings, dtype: torch.dtype) -> Any:
    common: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    quantized = quantization.config(settings, dtype)
    if quantized is None:
        return _load_plain(source, settings, dtype, common)
    if source.path is not None and source.path.is_file():
        raise ModelsError(
            f"{source.name}: SDE_QUANTIZATION={settings.quantization} wants a directory, not a "
            f"single file ({source.path.name})"
        )
    with quantization.current_device(settings):
        common["quantization_config"] = quantized
        pipe = _load_plain(source, settings, dtype, common)
    quantization.check_done(pipe, source.name, settings.quantization)
    return pipe


def _load_plain(
    source: Source, settings: WorkerSettings, dtype: torch.dtype, common: dict[str, Any]
) -> Any:
    if source.path is not None and source.path.is_file():
        return _single_file(source, settings, dtype, common)
    if source.model.variant is not None:
        common["variant"] = source.model.variant
    if source.path is not None:
        return _auto(sources.pipeline_class(source)).from_pretrained(str(source.path), **common)
    return DiffusionPipeline.from_pretrained(
        source.model.source, revision=source.model.revision, cache_dir=settings.cache_dir, **common
    )


def _auto(found: Any) -> Any:
    """AutoPipeline's text-to-image class where it has one of that family, else the class itself."""
    from diffusers.pipelines.auto_pipeline import (
        AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
        _get_task_class,
    )

    mapped = _get_task_class(
        AUTO_TEXT2IMAGE_PIPELINES_MAPPING, found.__name__, throw_error_if_not_exist=False
    )
    return found if mapped is None else AutoPipelineForText2Image


def _single_file(
    source: Source, settings: WorkerSettings, dtype: torch.dtype, common: dict[str, Any]
) -> Any:
    """Such a file holds weights alone: sizes and vocabulary come from the directory beside it, or,
    without one, from the hub. Where it holds a transformer alone, so do the other weights."""
    path, config = str(source.path), source.config
    found = sources.pipeline_class(source)
    named = sources.index(config) if config is not None else {}
    if "transformer" in named and checkpoints.is_transformer_alone(Path(path)):
        part = getattr(diffusers, named["transformer"][1])
        more: dict[str, Any] = {"config": str(config), "subfolder": "transformer"}
        if path.endswith(".gguf"):
            more["quantization_config"] = diffusers.GGUFQuantizationConfig(compute_dtype=dtype)
        transformer = _from_file(source, part, dtype=dtype, **more)
        return _auto(found).from_pretrained(str(config), transformer=transformer, **common)
    config_given = None if config is None else str(config)
    pipe = _from_file(source, found, dtype=dtype, cache_dir=settings.cache_dir, config=config_given)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()  # diffusers 0.42 leaves T5 in training: its dropout draws at random
    return pipe


def _from_file(source: Source, found: Any, **more: Any) -> Any:
    """A pipeline or a transformer.

    Raises:
        ModelsError: diffusers reads no such file, or it has not all weights.
    """
    if not hasattr(found, "from_single_file"):
        raise ModelsError(f"{source.name}: {found.__name__} is not loaded from a single file")
    try:
        return found.from_single_file(str(source.path), **more)
    except NotImplementedError as error:  # torch's, of tensors that were never filled
        raise ModelsError(
            f"{source.name}: the file lacks weights that a {found.__name__} has"
        ) from error


def silence_libraries() -> None:
    """No warnings and no bars of the libraries in a user's terminal."""
    # diffusers logs truncated prompts and both libraries warn about what the operator cannot mend.
    from transformers.utils import logging as transformers_logging

    diffusers.utils.logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
