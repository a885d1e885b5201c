"""Stable Diffusion models of a few kilobytes, made on the spot with diffusers' own classes.

Saved as a directory, or as one file in the layout of the original code (CompVis' LDM), which the
single .safetensors files of the model sites have.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from tests.support.builders import original_layout, tiny_words

Weights = dict[str, torch.Tensor]


def build(seed: int = 0) -> StableDiffusionPipeline:
    """Random weights, two levels, 32 px."""
    torch.manual_seed(seed)
    tokenizer = tiny_words.clip_tokenizer()
    text_config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(32, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            sample_size=32,
        ),
        text_encoder=CLIPTextModel(text_config),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=8,
            cross_attention_dim=32,
        ),
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_single_file(pipe: StableDiffusionPipeline, path: Path) -> None:
    """Weights in one file, their configuration in the directory of the same name beside it."""
    parts = {
        original_layout.UNET_PREFIX: _ldm_unet(pipe.unet),
        original_layout.VAE_PREFIX: _ldm_vae(pipe.vae),
        original_layout.CLIP_PREFIX: _ldm_text(pipe.text_encoder),
    }
    weights = {prefix + key: value for prefix, part in parts.items() for key, value in part.items()}
    save_file({key: value.contiguous() for key, value in weights.items()}, path)
    pipe.save_pretrained(path.with_suffix(""))
    for config_only in path.with_suffix("").rglob("*.safetensors"):
        config_only.unlink()


def _ldm_unet(unet: UNet2DConditionModel) -> Weights:
    return {_ldm_unet_key(key): value for key, value in unet.state_dict().items()}


def _ldm_unet_key(key: str) -> str:
    """Names as in CompVis' openaimodel.py, for two levels of one layer each."""
    for ours, theirs in original_layout.ENDS.items():
        if key.startswith(ours + "."):
            return theirs + key.removeprefix(ours)
    where, _, rest = key.partition("resnets.")
    if rest:
        layer, part, name = re.fullmatch(r"(\d)\.(\w+)\.(\w+)", rest).groups()  # type: ignore[union-attr]
        return f"{_ldm_place(where, int(layer), 0)}.{original_layout.RESNET[part]}.{name}"
    where, _, rest = key.partition("attentions.")
    if rest:
        return f"{_ldm_place(where, int(rest[0]), 1)}.{rest[2:]}"
    if "downsamplers" in key:
        return key.replace("down_blocks.0.downsamplers.0.conv", "input_blocks.2.0.op")
    return key.replace("up_blocks.0.upsamplers.0.conv", "output_blocks.1.1.conv")


def _ldm_place(where: str, layer: int, part: int) -> str:
    if where.startswith("mid_block"):
        return f"middle_block.{2 * layer + part}"
    block = int(where.split(".")[1])
    if where.startswith("down_blocks"):
        return f"input_blocks.{block * 2 + layer + 1}.{part}"
    return f"output_blocks.{block * 2 + layer}.{part}"


VAE_WORDS = (
    (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.upsamplers\.0", r"up_\1.upsample"),
    (r"up_blocks\.(\d)\.resnets", r"up_\1.block"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    ("conv_norm_out", "norm_out"),
    ("conv_shortcut", "nin_shortcut"),
    ("group_norm", "norm"),
    (r"to_([qkv])\.", r"\1."),
    (r"to_out\.0", "proj_out"),
)


def _ldm_vae(vae: AutoencoderKL) -> Weights:
    """The original counts the decoder's levels from the last, and attends by 1x1 convolutions."""
    renamed = {}
    for key, value in vae.state_dict().items():
        for ours, theirs in VAE_WORDS:
            key = re.sub(ours, theirs, key)
        key = re.sub(r"up_(\d)", lambda level: f"up.{1 - int(level[1])}", key)
        is_attention = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", key)
        renamed[key] = value[..., None, None] if is_attention else value
    return renamed


def _ldm_text(text: CLIPTextModel) -> Weights:
    weights = text.state_dict()
    return {
        key if key.startswith("text_model.") else f"text_model.{key}": value
        for key, value in weights.items()
    }
