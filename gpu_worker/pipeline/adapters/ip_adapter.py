"""An IP-Adapter of models.toml for one job: pictures imitate another one."""

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

ENCODER_PLACES = ("image_encoder", "../image_encoder", "../models/image_encoder")
"""Seen from the adapter's file: the layout of h94/IP-Adapter, where most come from."""


@contextlib.contextmanager
def attach(pipe: Any, context: GenerationContext) -> Iterator[dict[str, Any]]:
    """The UNet attends to the picture within; gives the further arguments of the call.

    `pipe` must be the job's own: it gets the image encoder.

    Raises:
        Unsupported: the pipeline takes none, or it was made for another family of models.
        ModelsError: models.toml does not know it, or a file is missing.
        MissingPicture: the picture is gone or cannot be read.
    """
    asked, shelf = context.request.ip_adapter, context.assets
    if asked is None:
        yield {}
        return
    unet = getattr(pipe, "unet", None)
    if unet is None or not hasattr(pipe, "load_ip_adapter"):
        raise unsupported("ip_adapter", asked.name, pipe, "takes no IP-Adapter")
    picture = context.images.picture(asked.image)
    file = shelf.file("ip_adapters", asked.name)
    _check_kind(pipe, asked.name, file)
    encoder = CLIPVisionModelWithProjection.from_pretrained(
        str(_encoder_folder(asked.name, file, shelf)),
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
            said = " ".join(str(error).split())[:300]
            why = f"cannot take this IP-Adapter, made for another family of models? {said}"
            raise unsupported("ip_adapter", asked.name, pipe, why) from error
        pipe.set_ip_adapter_scale(asked.scale)
        yield {"ip_adapter_image": picture}


def _check_kind(pipe: Any, name: str, file: Path) -> None:
    keys = check_header(file, f"ip_adapters.{name}")
    if any("_lora." in key for key in keys):
        raise unsupported("ip_adapter", name, pipe, "cannot take a FaceID: it has no face detector")
    if not any(key.startswith("ip_adapter.") for key in keys):
        raise ModelsError(f"ip_adapters.{name}: {file.name} is no IP-Adapter")


def _encoder_folder(name: str, file: Path, shelf: AssetFiles) -> Path:
    for place in ENCODER_PLACES:
        folder = (file.parent / place).resolve()
        inside = shelf.folder.resolve()
        if (folder / "config.json").is_file() and (
            folder.is_relative_to(inside) or not file.is_relative_to(inside)
        ):
            return folder
    raise ModelsError(f"ip_adapters.{name}: there is no image_encoder directory beside {file.name}")


@contextlib.contextmanager
def _processors_restored(unet: Any) -> Iterator[None]:
    """diffusers' unload would give every attention its default processor, whatever it had."""
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
