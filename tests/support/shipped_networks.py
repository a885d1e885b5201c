"""The networks of gpu_worker/model_configs/ without memory, and single files of their size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from accelerate import init_empty_weights

from gpu_worker.model_configs import FOLDER
from tests.support.builders import original_layout

NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")


def network(name: str, part: str) -> Any:
    """A part of a configuration on the meta device; None if the index has none."""
    index = json.loads((FOLDER / name / "model_index.json").read_text())
    library, class_name = index.get(part) or (None, None)
    if library is None:
        return None
    config = json.loads((FOLDER / name / part / "config.json").read_text())
    cls = getattr(diffusers if library == "diffusers" else transformers, class_name)
    with init_empty_weights(include_buffers=False):
        if library == "diffusers":
            return cls.from_config(config)
        return cls(cls.config_class.from_dict(config))


def shapes(name: str) -> original_layout.Shapes:
    """The tensors of a single file as its publisher names them."""
    parts = {part: network(name, part) for part in NETWORKS}
    text, text_2 = parts["text_encoder"], parts["text_encoder_2"]
    weights = original_layout.unet(parts["unet"]) | original_layout.vae(parts["vae"])
    if name.startswith("stable-diffusion-1"):
        return weights | original_layout.clip(text, original_layout.CLIP_PREFIX)
    if name.startswith("stable-diffusion-2"):
        return weights | original_layout.open_clip(text, original_layout.OPEN_CLIP_PREFIX, 24)
    prefix, clip = original_layout.REFINER_OPEN_CLIP_PREFIX, {}
    if text is not None:
        prefix = original_layout.XL_OPEN_CLIP_PREFIX
        clip = original_layout.clip(text, original_layout.XL_CLIP_PREFIX)
    return weights | clip | original_layout.open_clip(text_2, prefix, 32)


def write(
    name: str,
    path: Path,
    *keys: str,
    metadata: dict[str, str] | None = None,
    values: dict[str, torch.Tensor] | None = None,
) -> None:
    """A single file with zeros, but for `values`; `keys`: further tensors without elements."""
    marks = {key: torch.Size([0]) for key in keys}
    path.parent.mkdir(parents=True, exist_ok=True)
    original_layout.write_sparse(path, shapes(name) | marks, metadata, values or {})
