"""Finds a model and loads it: the built-in one, a directory, a single file or a hub id.

safetensors only, never remote code. Knows no request.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoPipelineForText2Image, StableDiffusionPipeline, StableDiffusionXLPipeline

from gpu_worker.settings import WorkerSettings

DEMO_MODEL = Path(__file__).parent.parent / "demo_model"


class ModelNotFound(ValueError):
    """A model's name stands for nothing that can be loaded; the text says what was looked for."""


def from_source(settings: WorkerSettings, dtype: torch.dtype) -> Any:
    """demo, a directory, a .safetensors file or a hub id; safetensors only, never remote code."""
    name = settings.model
    common = {"dtype": dtype, "use_safetensors": True}
    if name == "demo":
        return AutoPipelineForText2Image.from_pretrained(str(DEMO_MODEL), **common)
    path = Path(name)
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ModelNotFound(f"SDE_MODEL={name}: the directory has no model_index.json")
        return AutoPipelineForText2Image.from_pretrained(str(path), **common)
    cache_dir = None if os.environ.get("HF_HOME") else str(settings.model_cache)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ModelNotFound(f"SDE_MODEL={name}: there is no such file")
        return _single_file_class(path).from_single_file(
            str(path), dtype=dtype, cache_dir=cache_dir, config=_single_file_config(path)
        )
    if path.is_absolute() or path.suffix in (".ckpt", ".bin", ".pt") or name.count("/") != 1:
        raise ModelNotFound(
            f"SDE_MODEL={name}: is neither demo, nor a directory, nor a .safetensors file, "
            "nor a hub id such as stabilityai/stable-diffusion-2-1"
        )
    return AutoPipelineForText2Image.from_pretrained(name, cache_dir=cache_dir, **common)


def _single_file_class(path: Path) -> Any:
    """SDXL checkpoints carry a second text encoder under this name; SD 1.x and 2.x do not."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
    is_xl = any(name.startswith("conditioner.embedders.1.") for name in names)
    return StableDiffusionXLPipeline if is_xl else StableDiffusionPipeline


def _single_file_config(path: Path) -> str | None:
    """Such a file holds weights alone: sizes and vocabulary come from the directory of the same
    name beside it, in diffusers' layout, or (None) from the hub by what the weights look like.
    """
    beside = path.with_suffix("")
    return str(beside) if (beside / "model_index.json").is_file() else None


def quiet() -> None:
    """No warnings and no bars of the libraries in a user's terminal."""
    # diffusers logs truncated prompts and both libraries warn about what the operator cannot mend.
    from transformers.utils import logging as transformers_logging

    diffusers.utils.logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
