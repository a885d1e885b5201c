"""What a refiner is made of: its own UNet, and of the loaded model what its directory lacks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, StableDiffusionXLImg2ImgPipeline, UNet2DConditionModel
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from gpu_worker.assets.model_library import ModelsError
from gpu_worker.contract.validation_errors import Unsupported
from gpu_worker.pipeline.loading import machine_size, sources
from gpu_worker.pipeline.loading.asset_files import DEVICE_ERRORS, AssetFiles
from gpu_worker.pipeline.loading.loaded_model import unsupported
from gpu_worker.pipeline.sampling.context import GenerationContext

NETWORKS = {"UNet2DConditionModel": UNet2DConditionModel}

_PARTS: dict[str, Any] = {
    "text_encoder_2": CLIPTextModelWithProjection,
    "tokenizer_2": CLIPTokenizer,
    "vae": AutoencoderKL,
}
"""What its directory may hold beside the UNet; and the file that says that it is there."""
_SIGN = {"tokenizer_2": "tokenizer_config.json"}

_SIZES_WITH_SCORE, _SIZES_WITHOUT = 5, 6
"""Numbers that a UNet is told beside the text: two sizes and a crop, of which the last pair gives
way to the aesthetic score in the published refiner (diffusers' `_get_add_time_ids`)."""


def pipeline(pipe: Any, context: GenerationContext) -> Any:
    """Image to image with the refiner's UNet, and with `pipe`'s text_encoder_2, tokenizer_2 and VAE
    where its directory holds none; with `pipe`'s scheduler in any case.

    Raises:
        Unsupported: it was made for another family of models.
        ModelsError: models.toml does not know it, or it is none.
    """
    loaded, request, shelf = context.loaded, context.request, context.assets
    name = request.refiner.name if request.refiner else ""
    dtype = loaded.pipe.dtype
    unet = shelf.network("refiners", name, NETWORKS, dtype, inner="unet")
    if machine_size.SWITCHES[loaded.size].attention_slicing:
        unet.set_attention_slice("auto")
    _, folder = shelf.part("refiners", name)
    has_index = folder is not None and (folder / sources.INDEX).is_file()
    index = sources.index(folder) if folder is not None and has_index else {}
    own = {part: _own(shelf, name, part, folder, dtype) for part in _PARTS if has_index}
    if own.get("text_encoder_2") is not None and request.embeddings:
        why = f"has a text_encoder_2 of its own in {name!r}, which knows no word of embeddings"
        raise unsupported("refiner", name, pipe, f"cannot take this one: it {why}")
    if request.vae is not None:
        own["vae"] = None
    elif own.get("vae") is not None:
        machine_size.enable_vae_savings(own["vae"], loaded.size)
    parts = {part: own.get(part) or getattr(pipe, part) for part in _PARTS}
    return StableDiffusionXLImg2ImgPipeline(
        **parts,
        unet=unet,
        text_encoder=None,
        tokenizer=None,
        scheduler=copy.deepcopy(pipe.scheduler),
        requires_aesthetics_score=_wants_score(pipe, name, unet, parts),
        force_zeros_for_empty_prompt=bool(index.get("force_zeros_for_empty_prompt", False)),
        add_watermarker=getattr(pipe, "watermark", None) is not None,
    )


def _own(shelf: AssetFiles, name: str, part: str, folder: Path | None, dtype: Any) -> Any:
    """A part of the refiner's directory; None where it holds none."""
    if folder is None or not (folder / part / _SIGN.get(part, "config.json")).is_file():
        return None
    how: dict[str, Any] = {"use_safetensors": True, "dtype": dtype}
    if variant := shelf.variant("refiners", name):
        how["variant"] = variant
    try:
        return _PARTS[part].from_pretrained(
            str(folder / part), local_files_only=True, **({} if part == "tokenizer_2" else how)
        )
    except DEVICE_ERRORS:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelsError(f"refiners.{name}: its {part} cannot be loaded: {error}") from error


def _wants_score(pipe: Any, name: str, unet: Any, parts: dict[str, Any]) -> bool:
    """Whether the UNet is told an aesthetic score instead of a size.

    Raises:
        Unsupported: it reads other text or other latents than there are.
    """
    text, latents = parts["text_encoder_2"].config, parts["vae"].config.latent_channels
    config = unet.config
    if config.cross_attention_dim != text.hidden_size:
        reason = f"reads text of width {config.cross_attention_dim}, text_encoder_2 writes "
        raise _misfit(pipe, name, f"{reason}{text.hidden_size}")
    if config.in_channels != latents:
        raise _misfit(pipe, name, f"reads {config.in_channels} channels, latents have {latents}")
    input_dim = (config.projection_class_embeddings_input_dim or 0) - text.projection_dim
    embed_dim = config.addition_time_embed_dim or 1
    if config.addition_embed_type != "text_time" or input_dim not in (
        _SIZES_WITH_SCORE * embed_dim,
        _SIZES_WITHOUT * embed_dim,
    ):
        raise _misfit(pipe, name, "is told neither sizes nor an aesthetic score")
    return bool(input_dim == _SIZES_WITH_SCORE * embed_dim)


def _misfit(pipe: Any, name: str, why: str) -> Unsupported:
    return unsupported("refiner", name, pipe, f"cannot take it: its UNet {why}")
