"""Says what a single file of weights holds, from the names and shapes in it; reads no weights."""

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
    """The pipeline that diffusers would make of the file, without a word from anywhere else.

    Raises:
        ModelsError: the file is no safetensors, holds a part of a model only, or diffusers does not
            recognise it.
    """
    found = _contents(path)
    try:
        kind = single_file_utils.infer_diffusers_model_type(found)
    except (KeyError, IndexError, ValueError, UnboundLocalError):  # keys of two families
        kind = "unknown"
    if kind == "v1" and not any(key.startswith(_UNET) for key in found):
        kind = "unknown"  # what diffusers takes everything for that it does not know
    if kind not in families.SINGLE_FILES or not has_vae(found):
        said = "holds no model that is recognised" if kind == "unknown" else f"is {kind} alone"
        beside = path.with_suffix("").name
        raise ModelsError(
            f"{path.name}: {said}; the rest is wanted in diffusers' layout in {beside}/ beside it"
        )
    return getattr(diffusers, families.SINGLE_FILES[kind])


def is_transformer_alone(path: Path) -> bool:
    """Whether VAE and text encoders must come from elsewhere. A GGUF file has nothing else."""
    return path.suffix == ".gguf" or not has_vae(_contents(path))


def has_vae(keys: Any) -> bool:
    """Whether a checkpoint's names are a whole model's."""
    return any(key.startswith(_VAE) for key in keys)


def _contents(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of the right shapes with nothing in them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {
                key: torch.empty(file.get_slice(key).get_shape(), device="meta")
                for key in file.keys()  # noqa: SIM118
            }
    except SafetensorError as error:
        raise ModelsError(f"{path.name}: is not safetensors: {error}") from None
