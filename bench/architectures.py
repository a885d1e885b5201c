"""Stable Diffusion 1.5, 2.1 and XL at their real size with random weights, made without a hub.

Sizes are those of the models' published config.json files; parameters are counted against the
published numbers. Time and memory do not depend on what the weights are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from gpu_worker.pipeline.execution import dtypes
from gpu_worker.pipeline.families import family_of
from recipe.model import tokens

VOCABULARY = 49408
"""Of CLIP; the tokenizer made here knows fewer words, the embedding is as large as theirs."""


@dataclass(frozen=True)
class Architecture:
    """A model by its name in tables; parameters in millions, `steps` of a usual picture."""

    name: str
    title: str
    side_px: int
    steps: int
    unet_parameters: float
    all_parameters: float
    unet: dict[str, Any]
    vae: dict[str, Any]
    text: tuple[dict[str, Any], ...]
    more: dict[str, Any] = field(default_factory=dict)


_NOISE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
_NOISE |= {"steps_offset": 1}
_CLIP_L: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
_CLIP_L |= {"num_attention_heads": 12, "hidden_act": "quick_gelu", "projection_dim": 768}
_OPEN_CLIP_H: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
}
_OPEN_CLIP_H |= {"num_attention_heads": 16, "hidden_act": "gelu", "projection_dim": 512}
_BIG_G: dict[str, Any] = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
_BIG_G |= {"num_attention_heads": 20, "hidden_act": "gelu", "projection_dim": 1280}

ARCHITECTURES = {
    known.name: known
    for known in (
        Architecture(
            "sd15",
            "SD 1.5",
            512,
            50,
            859.5,
            1066.2,
            {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
            {"sample_size": 512},
            (_CLIP_L,),
        ),
        Architecture(
            "sd21",
            "SD 2.1",
            768,
            50,
            865.9,
            1290.0,
            {
                "sample_size": 96,
                "cross_attention_dim": 1024,
                "attention_head_dim": (5, 10, 20, 20),
                "use_linear_projection": True,
            },
            {"sample_size": 768},
            (_OPEN_CLIP_H,),
        ),
        Architecture(
            "xl",
            "SD XL",
            1024,
            30,
            2567.5,
            3468.8,
            {
                "sample_size": 128,
                "block_out_channels": (320, 640, 1280),
                "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
                "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
                "transformer_layers_per_block": (1, 2, 10),
                "attention_head_dim": (5, 10, 20),
                "cross_attention_dim": 2048,
                "use_linear_projection": True,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
            },
            {"sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
            (_CLIP_L, _BIG_G),
        ),
    )
}


def dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of Stable Diffusion's weights on a device, as the worker chooses it."""
    return dtypes.choose(family_of("StableDiffusionPipeline"), device).default


def build(known: Architecture, dtype: torch.dtype) -> Any:
    """The pipeline on the CPU, the weights random, finite and none of them denormal."""
    tokenizer = tokens.build_tokenizer(tokens.vocabulary(), max_tokens=77)
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    configs = [CLIPTextConfig(vocab_size=VOCABULARY, **ends, **text) for text in known.text]
    parts: dict[str, Any] = {
        "tokenizer": tokenizer,
        "text_encoder": _filled(lambda: CLIPTextModel(configs[0]), dtype),
        "vae": build_vae(known, dtype),
        "unet": build_unet(known, dtype),
    }
    if len(configs) > 1:
        second = _filled(lambda: CLIPTextModelWithProjection(configs[1]), dtype)
        return StableDiffusionXLPipeline(
            **parts,
            tokenizer_2=tokenizer,
            text_encoder_2=second,
            scheduler=EulerDiscreteScheduler(**_NOISE),
            add_watermarker=False,
        )
    return StableDiffusionPipeline(
        **parts,
        scheduler=DDIMScheduler(**_NOISE, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def build_unet(known: Architecture, dtype: torch.dtype) -> UNet2DConditionModel:
    """The denoiser alone.

    Raises:
        ValueError: it has not as many parameters as the real one.
    """
    unet = _filled(lambda: UNet2DConditionModel(**known.unet), dtype)
    counted = sum(weight.numel() for weight in unet.parameters()) / 1e6
    if round(counted, 1) != known.unet_parameters:
        raise ValueError(f"{known.title}: {counted:.1f} M parameters, not {known.unet_parameters}")
    return unet


def build_vae(known: Architecture, dtype: torch.dtype) -> AutoencoderKL:
    """The autoencoder alone: 83.7 M parameters in all three."""
    channels = (128, 256, 512, 512)
    blocks = {
        "block_out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
        "layers_per_block": 2,
    }
    return _filled(lambda: AutoencoderKL(**blocks, **known.vae), dtype)


def weights_bytes(pipe: Any) -> int:
    """Of all parts together."""
    modules = (part for part in pipe.components.values() if isinstance(part, torch.nn.Module))
    return sum(
        weight.numel() * weight.element_size()
        for module in modules
        for weight in module.parameters()
    )


def _filled(make: Callable[[], Any], dtype: torch.dtype) -> Any:
    """Made without memory first: the libraries' own initialisation takes minutes.

    A layer's outputs are as large as its inputs: uniform with variance 1 / inputs.
    """
    with torch.device("meta"):
        module = make().to(dtype)
    # A card fills in a second what takes the CPU half a minute.
    module.to_empty(device="cuda" if torch.cuda.is_available() else "cpu").eval()
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.ndim > 1:
                bound = math.sqrt(3 / weight[0].numel())
                weight.uniform_(-bound, bound)
            else:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)
        for _, buffer in module.named_buffers():
            _count(buffer)
    return module.to("cpu").requires_grad_(False)


def _count(buffer: torch.Tensor) -> None:
    """The only buffers that these have are CLIP's position_ids, (1, tokens)."""
    buffer.copy_(torch.arange(buffer.shape[-1]).expand(buffer.shape))
