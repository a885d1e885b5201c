"""Sizes, builds and saves the demonstration model's parts in diffusers' layout; trains nothing."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from gpu_worker.demo_model.shapes import PIXELS

LATENT_CHANNELS = 4
LATENT_PIXELS = PIXELS // 4
_TEXT_WIDTH = 96


def build_vae() -> AutoencoderKL:
    """Pictures (n, 3, 64, 64) in -1..1 to latents (n, 4, 16, 16) and back."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=LATENT_CHANNELS,
        sample_size=PIXELS,
        mid_block_add_attention=False,
    )


def build_unet() -> UNet2DConditionModel:
    """The noise predictor; it attends only at 8x8, where attention is cheap on a CPU.

    The pooled text also scales and shifts every block through the time embedding: attention alone
    learns colours quickly and outlines slowly.
    """
    return UNet2DConditionModel(
        sample_size=LATENT_PIXELS,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(32, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        cross_attention_dim=_TEXT_WIDTH,
        norm_num_groups=8,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A two-layer CLIP text model over the tokenizer's vocabulary."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_TEXT_WIDTH,
        intermediate_size=256,
        projection_dim=_TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_scheduler() -> DDIMScheduler:
    """Linear betas, which leave almost nothing of the picture at the last step.

    Plain backgrounds show any leak of the picture's mean into the starting noise; these betas
    avoid it without a zero-SNR option that other schedulers would have to know.
    """
    return DDIMScheduler(
        beta_schedule="linear",
        beta_start=0.0001,
        beta_end=0.02,
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
    )


def save_pipeline(
    folder: Path,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
) -> None:
    """Writes the whole pipeline with half-precision weights, safetensors only."""
    halves = [copy.deepcopy(part).to(torch.float16) for part in (text_encoder, unet, vae)]
    pipeline = StableDiffusionPipeline(
        text_encoder=halves[0],
        unet=halves[1],
        vae=halves[2],
        tokenizer=tokenizer,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
