"""Attaches an IP-Adapter from models.toml for one job: its image guides the generation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffusers.models.attention_processor import AttnProcessor2_0, SlicedAttnProcessor
from transformers import CLIPVisionModelWithProjection

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.pipeline.loading.asset_files import DEVICE_ERRORS, AssetFiles, check_header
from gpu_worker.pipeline.loading.loaded_model import unsupported
from gpu_worker.pipeline.sampling.context import GenerationContext

ENCODER_FOLDERS = ("image_encoder", "../image_encoder", "../models/image_encoder")
"""Paths relative to the adapter's file, in the layout of the h94/IP-Adapter repository."""


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
    encoder = CLIPVisionModelWithProjection.from_pretrained(
        str(_encoder_folder(requested.name, file, assets)),
        use_safetensors=True,
        local_files_only=True,
        dtype=pipe.dtype,
    )
    pipe.register_modules(image_encoder=encoder)
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


def _encoder_folder(name: str, file: Path, assets: AssetFiles) -> Path:
    for subfolder in ENCODER_FOLDERS:
        folder = (file.parent / subfolder).resolve()
        models_folder = assets.folder.resolve()
        if (folder / "config.json").is_file() and (
            folder.is_relative_to(models_folder) or not file.is_relative_to(models_folder)
        ):
            return folder
    raise ModelsError(f"ip_adapters.{name}: there is no image_encoder directory beside {file.name}")


@contextlib.contextmanager
def _processors_restored(unet: Any) -> Iterator[None]:
    """Restore the UNet's attention processors afterwards.

    diffusers' unload sets the default processor everywhere, whatever was there before.
    """
    processors = dict(unet.attn_processors)
    projection, kind = unet.encoder_hid_proj, unet.config.encoder_hid_dim_type
    if any(isinstance(processor, SlicedAttnProcessor) for processor in processors.values()):
        # An adapter's attention cannot be sliced, and load_ip_adapter fails on one that is.
        unet.set_attn_processor(AttnProcessor2_0())
    try:
        yield
    finally:
        unet.encoder_hid_proj = projection
        unet.config.encoder_hid_dim_type = kind
        unet.set_attn_processor(processors)
