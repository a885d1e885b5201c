"""Loads a model that was found: a directory, a single file, a GGUF transformer, or from the hub.

safetensors and GGUF only, never remote code. Knows no device and no request.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import diffusers
import torch
from diffusers import AutoPipelineForText2Image, DiffusionPipeline
from diffusers.quantizers import PipelineQuantizationConfig

from gpu_worker.models import ModelsError
from gpu_worker.pipeline import sources
from gpu_worker.pipeline.sources import Source
from gpu_worker.settings import WorkerSettings

_BACKENDS: dict[str, tuple[str, str]] = {
    "bitsandbytes-8bit": ("bitsandbytes", "bitsandbytes"),
    "bitsandbytes-4bit": ("bitsandbytes", "bitsandbytes"),
    "torchao-int8": ("torchao", "torchao"),
    "quanto-int8": ("optimum.quanto", "quanto"),
}
"""Of each SDE_QUANTIZATION the module that it needs, and the extra that installs it."""


def load(source: Source, settings: WorkerSettings, dtype: torch.dtype) -> Any:
    """The pipeline, on the CPU.

    Raises:
        ModelsError: SDE_QUANTIZATION wants a library that is not installed.
        Exception: whatever the libraries say of files that are not as they must be.
    """
    common: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    quantized = _quantization(settings.quantization, dtype)
    if quantized is not None:
        common["quantization_config"] = quantized
    if source.path is not None and source.path.is_file():
        return _single_file(source, settings, dtype, common)
    if source.model.variant is not None:
        common["variant"] = source.model.variant
    if source.path is not None:
        return _auto(sources.pipeline_class(source)).from_pretrained(str(source.path), **common)
    cache_dir = None if os.environ.get("HF_HOME") else str(settings.model_cache)
    return DiffusionPipeline.from_pretrained(
        source.model.source, revision=source.model.revision, cache_dir=cache_dir, **common
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
    without one, from the hub."""
    path, config = str(source.path), source.config
    found = sources.pipeline_class(source)
    if config is not None and path.endswith(".gguf"):
        part = sources.index(config)["transformer"][1]
        transformer = getattr(diffusers, part).from_single_file(
            path,
            quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=dtype),
            config=str(config),
            subfolder="transformer",
            dtype=dtype,
        )
        return _auto(found).from_pretrained(str(config), transformer=transformer, **common)
    if not hasattr(found, "from_single_file"):
        raise ModelsError(f"{source.name}: {found.__name__} is not loaded from a single file")
    if "quantization_config" in common:
        raise ModelsError(f"{source.name}: SDE_QUANTIZATION wants a directory, not a single file")
    cache_dir = None if os.environ.get("HF_HOME") else str(settings.model_cache)
    return found.from_single_file(
        path, dtype=dtype, cache_dir=cache_dir, config=None if config is None else str(config)
    )


def _quantization(wanted: str, dtype: torch.dtype) -> PipelineQuantizationConfig | None:
    """What diffusers takes for SDE_QUANTIZATION: the UNet's or the transformer's weights only."""
    if wanted == "none":
        return None
    module, extra = _BACKENDS[wanted]
    try:
        is_there = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        is_there = False
    if not is_there:
        raise ModelsError(
            f"SDE_QUANTIZATION={wanted}: {module} is not installed; "
            f"pip install 'stable-diffusion-environment[{extra}]'"
        )
    parts = ["unet", "transformer"]
    if wanted == "torchao-int8":
        from torchao.quantization import Int8WeightOnlyConfig

        config = diffusers.TorchAoConfig(Int8WeightOnlyConfig())
        return PipelineQuantizationConfig(quant_mapping=dict.fromkeys(parts, config))
    if wanted == "quanto-int8":
        config = diffusers.QuantoConfig(weights_dtype="int8")
        return PipelineQuantizationConfig(quant_mapping=dict.fromkeys(parts, config))
    few = wanted == "bitsandbytes-4bit"
    options = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    return PipelineQuantizationConfig(
        quant_backend="bitsandbytes_4bit" if few else "bitsandbytes_8bit",
        quant_kwargs=options if few else {"load_in_8bit": True},
        components_to_quantize=parts,
    )


def quiet() -> None:
    """No warnings and no bars of the libraries in a user's terminal."""
    # diffusers logs truncated prompts and both libraries warn about what the operator cannot mend.
    from transformers.utils import logging as transformers_logging

    diffusers.utils.logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
