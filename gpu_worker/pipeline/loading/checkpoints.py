"""Recognises the content of a single weights file from its tensors' names and shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders import single_file_utils

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.pipeline import families

_VAE = ("first_stage_model.", "vae.")
_UNET = "model.diffusion_model."


def pipeline_class(path: Path) -> Any:
    """Return the pipeline class that diffusers uses for the file, without any other information.

    Raises:
        ModelsError: the file is not safetensors, holds only a part of a model, or is unknown to
            diffusers.
    """
    tensors = _contents(path)
    try:
        kind = single_file_utils.infer_diffusers_model_type(tensors)
    except (KeyError, IndexError, ValueError, UnboundLocalError):  # keys of two families
        kind = "unknown"
    if kind == "v1" and not any(key.startswith(_UNET) for key in tensors):
        kind = "unknown"  # diffusers takes every unknown file for v1
    if kind not in families.SINGLE_FILES or not has_vae(tensors):
        reason = "holds no known model" if kind == "unknown" else f"is {kind} only"
        beside = path.with_suffix("").name
        raise ModelsError(
            f"{path.name}: {reason}; put the other parts in diffusers' layout in "
            f"{beside}/ beside it"
        )
    return getattr(diffusers, families.SINGLE_FILES[kind])


def configuration(path: Path) -> str:
    """Return the hub id of diffusers' configuration for a single file with a whole model."""
    config = single_file_utils.fetch_diffusers_config(_contents(path))
    return str(config["pretrained_model_name_or_path"])


def is_transformer_alone(path: Path) -> bool:
    """Return whether the file lacks VAE and text encoders, as a GGUF file always does."""
    return path.suffix == ".gguf" or not has_vae(_contents(path))


def has_vae(keys: Any) -> bool:
    """Return whether a checkpoint's keys include a VAE's, as a whole model's do."""
    return any(key.startswith(_VAE) for key in keys)


def _contents(path: Path) -> dict[str, torch.Tensor]:
    """Return the file's tensors by name, with their shapes but without data."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {
                key: torch.empty(file.get_slice(key).get_shape(), device="meta")
                for key in file.keys()  # noqa: SIM118
            }
    except SafetensorError as error:
        raise ModelsError(f"{path.name}: is not a safetensors file: {error}") from None
