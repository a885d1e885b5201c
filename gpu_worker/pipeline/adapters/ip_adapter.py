"""Attaches an IP-Adapter from models.toml for one job: its image guides the generation."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import CLIPVisionModelWithProjection

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.pipeline.inputs.context import GenerationContext
from gpu_worker.pipeline.loading import sources
from gpu_worker.pipeline.loading.asset_files import DEVICE_ERRORS, AssetFiles, check_header
from gpu_worker.pipeline.loading.loaded_model import unsupported
from gpu_worker.pipeline.loading.recent_networks import file_states

ENCODER_FOLDERS = ("image_encoder", "../image_encoder", "../models/image_encoder")
"""Paths relative to the adapter's file, in the layout of the h94/IP-Adapter repository."""

_ENCODER_OUTPUTS = {
    "image_proj.proj.weight": "projection_dim",
    "image_proj.proj.0.weight": "hidden_size",
    "image_proj.proj_in.weight": "hidden_size",
}
"""The first layer of an adapter of each kind, and the field with the width of its input."""


@contextlib.contextmanager
def attach(pipe: Any, context: GenerationContext) -> Iterator[dict[str, Any]]:
    """Attach the request's IP-Adapter to the UNet, and yield its call arguments.

    Args:
        pipe: the job's own pipeline, which gets the image encoder.

    Raises:
        Unsupported: the pipeline has no IP-Adapters, or this one is for another model family.
        ModelsError: the name is not in models.toml, or a file is missing.
        MissingImage: the image is missing or cannot be read.
    """
    requested, assets = context.request.ip_adapter, context.assets
    if requested is None:
        yield {}
        return
    unet = getattr(pipe, "unet", None)
    if unet is None or not hasattr(pipe, "load_ip_adapter"):
        raise unsupported("ip_adapter", requested.name, pipe, "does not support IP-Adapters")
    image = context.images.image(requested.image)
    file = assets.file("ip_adapters", requested.name)
    _check_kind(pipe, requested.name, file)
    folder = _encoder_folder(requested.name, file, assets, pipe)
    pipe.register_modules(image_encoder=_encoder(folder, assets, context.loaded.dtype))
    with _processors_restored(unet):
        try:
            pipe.load_ip_adapter(
                str(file.parent), subfolder="", weight_name=file.name, image_encoder_folder=None
            )
        except DEVICE_ERRORS:
            raise
        except (RuntimeError, ValueError, KeyError) as error:
            message = " ".join(str(error).split())[:300]
            reason = f"cannot load this IP-Adapter; it may be for another model family: {message}"
            raise unsupported("ip_adapter", requested.name, pipe, reason) from error
        pipe.set_ip_adapter_scale(requested.scale)
        yield {"ip_adapter_image": image}


def _check_kind(pipe: Any, name: str, file: Path) -> None:
    keys = check_header(file, f"ip_adapters.{name}")
    if any("_lora." in key for key in keys):
        reason = "does not support FaceID adapters: it has no face detector"
        raise unsupported("ip_adapter", name, pipe, reason)
    if not any(key.startswith("ip_adapter.") for key in keys):
        raise ModelsError(f"ip_adapters.{name}: {file.name} is not an IP-Adapter")


def _encoder_folder(name: str, file: Path, assets: AssetFiles, pipe: Any) -> Path:
    """Return the directory of the image encoder whose width the adapter reads.

    Raises:
        ModelsError: there is no image encoder.
        Unsupported: those that are there have other widths.
    """
    field, width = _encoder_width(file)
    widths: dict[str, object] = {}
    for subfolder in ENCODER_FOLDERS:
        folder = (file.parent / subfolder).resolve()
        models_folder = assets.folder.resolve()
        if (folder / "config.json").is_file() and (
            folder.is_relative_to(models_folder) or not file.is_relative_to(models_folder)
        ):
            config = sources.read_config(folder / "config.json", f"{subfolder}/config.json")
            own_width = config.get("vision_config", config).get(field)
            if width is None or own_width == width:
                return folder
            widths[subfolder] = own_width
    if not widths:
        raise ModelsError(
            f"ip_adapters.{name}: there is no image_encoder directory beside {file.name}"
        )
    listed = " and ".join(f"that in {place}/ has {own}" for place, own in widths.items())
    reason = f"needs an image encoder with {field} {width} for this IP-Adapter, but {listed}"
    raise unsupported("ip_adapter", name, pipe, reason)


def _encoder(folder: Path, assets: AssetFiles, dtype: torch.dtype) -> Any:
    """Return the image encoder, which may be that of the last job."""
    load = functools.partial(
        CLIPVisionModelWithProjection.from_pretrained,
        str(folder),
        use_safetensors=True,
        local_files_only=True,
        dtype=dtype,
    )
    return assets.recent.get("ip_adapters", (dtype, file_states(folder)), load)


def _encoder_width(file: Path) -> tuple[str, int | None]:
    """Return which output of the encoder an adapter reads, and its width; None if it is unknown.

    A plain adapter reads the projected embedding. Plus and full-face adapters read the hidden
    states (diffusers' `_convert_ip_adapter_image_proj_to_diffusers`).
    """
    with safe_open(file, framework="pt") as weights:
        keys = set(weights.keys())
        for key, field in _ENCODER_OUTPUTS.items():
            if key in keys:
                return field, int(weights.get_slice(key).get_shape()[-1])
    return "hidden_size", None


@contextlib.contextmanager
def _processors_restored(unet: Any) -> Iterator[None]:
    """Restore the UNet's attention processors afterwards.

    diffusers' unload sets the default processor everywhere, whatever was there before.
    """
    processors = dict(unet.attn_processors)
    projection, kind = unet.encoder_hid_proj, unet.config.encoder_hid_dim_type
    try:
        yield
    finally:
        unet.encoder_hid_proj = projection
        unet.config.encoder_hid_dim_type = kind
        unet.set_attn_processor(processors)
