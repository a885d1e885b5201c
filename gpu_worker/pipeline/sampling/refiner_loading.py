"""Builds a refiner from its own UNet and parts, and from parts of the loaded model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, StableDiffusionXLImg2ImgPipeline, UNet2DConditionModel
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from gpu_worker.assets import model_library
from gpu_worker.assets.model_library import ModelsError
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.execution import machine_size, vae_calls
from gpu_worker.pipeline.inputs.context import GenerationContext
from gpu_worker.pipeline.loading import sources
from gpu_worker.pipeline.loading.asset_files import DEVICE_ERRORS, AssetFiles, stored_variant
from gpu_worker.pipeline.loading.loaded_model import unsupported

NETWORKS = {"UNet2DConditionModel": UNet2DConditionModel}

_PARTS: dict[str, Any] = {
    "text_encoder_2": CLIPTextModelWithProjection,
    "tokenizer_2": CLIPTokenizer,
    "vae": AutoencoderKL,
}
"""The parts that a refiner's directory may have besides the UNet."""
_CONFIG_FILES = {"tokenizer_2": "tokenizer_config.json"}
"""The file that shows that a part exists, if it is not config.json."""

_SIZES_WITH_SCORE, _SIZES_WITHOUT = 5, 6
"""The count of numbers that a UNet gets besides the text: two sizes and a crop.

In the published refiner the aesthetic score replaces the last pair (diffusers'
`_get_add_time_ids`).
"""


def pipeline(pipe: Any, context: GenerationContext) -> Any:
    """Return an image-to-image pipeline with the refiner's UNet and the scheduler of `pipe`.

    text_encoder_2, tokenizer_2 and VAE are those of `pipe` if the refiner's directory has none.

    Raises:
        Unsupported: the refiner is for another model family.
        ModelsError: models.toml does not have the name, or its files are not a refiner.
    """
    loaded, request, assets = context.loaded, context.request, context.assets
    name = request.refiner.name if request.refiner else ""
    dtype = loaded.dtype
    unet = assets.recent_network("refiners", name, NETWORKS, dtype, inner="unet")
    _, folder = assets.part("refiners", name)
    has_index = folder is not None and (folder / model_library.INDEX).is_file()
    index = sources.index(folder) if folder is not None and has_index else {}
    own = {
        part: _own(assets, name, part, folder, pipe.vae.dtype if part == "vae" else dtype)
        for part in _PARTS
        if has_index
    }
    if own.get("text_encoder_2") is not None and request.embeddings:
        why = f"has its own text_encoder_2 in {name!r}, which does not know the words of embeddings"
        raise unsupported("refiner", name, pipe, f"does not support this refiner: it {why}")
    if request.vae is not None:
        own["vae"] = None
    elif own.get("vae") is not None:
        machine_size.enable_vae_savings(own["vae"], loaded.placement)
        vae_calls.install(own["vae"])
    parts = {part: own.get(part) or getattr(pipe, part) for part in _PARTS}
    return StableDiffusionXLImg2ImgPipeline(
        **parts,
        unet=unet,
        text_encoder=None,
        tokenizer=None,
        scheduler=copy.deepcopy(pipe.scheduler),
        requires_aesthetics_score=_takes_aesthetic_score(pipe, name, unet, parts),
        force_zeros_for_empty_prompt=bool(index.get("force_zeros_for_empty_prompt", False)),
        add_watermarker=getattr(pipe, "watermark", None) is not None,
    )


def _own(assets: AssetFiles, name: str, part: str, folder: Path | None, dtype: Any) -> Any:
    """Return a part of the refiner's directory, or None."""
    if folder is None or not (folder / part / _CONFIG_FILES.get(part, "config.json")).is_file():
        return None
    options: dict[str, Any] = {"use_safetensors": True, "dtype": dtype}
    variant = assets.part("refiners", name)[0].variant
    options["variant"] = stored_variant(folder / part, variant, f"refiners.{name}: its {part}")
    try:
        return _PARTS[part].from_pretrained(
            str(folder / part), local_files_only=True, **({} if part == "tokenizer_2" else options)
        )
    except DEVICE_ERRORS:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelsError(f"refiners.{name}: its {part} cannot be loaded: {error}") from error


def _takes_aesthetic_score(pipe: Any, name: str, unet: Any, parts: dict[str, Any]) -> bool:
    """Return whether the UNet gets an aesthetic score instead of a size.

    Raises:
        Unsupported: the UNet needs other text embeddings or latents.
    """
    text, latents = parts["text_encoder_2"].config, parts["vae"].config.latent_channels
    config = unet.config
    if config.cross_attention_dim != text.hidden_size:
        reason = f"reads text of width {config.cross_attention_dim}, but text_encoder_2 has "
        raise _misfit(pipe, name, f"{reason}{text.hidden_size}")
    if config.in_channels != latents:
        raise _misfit(
            pipe, name, f"reads {config.in_channels} channels, but the latents have {latents}"
        )
    input_dim = (config.projection_class_embeddings_input_dim or 0) - text.projection_dim
    embed_dim = config.addition_time_embed_dim or 1
    if config.addition_embed_type != "text_time" or input_dim not in (
        _SIZES_WITH_SCORE * embed_dim,
        _SIZES_WITHOUT * embed_dim,
    ):
        raise _misfit(pipe, name, "takes neither sizes nor an aesthetic score")
    return bool(input_dim == _SIZES_WITH_SCORE * embed_dim)


def _misfit(pipe: Any, name: str, why: str) -> Unsupported:
    return unsupported("refiner", name, pipe, f"does not support this refiner: its UNet {why}")
