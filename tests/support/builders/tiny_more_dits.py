"""More text-to-image transformers with random weights: those with parts of their own."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from tests.support.builders.tiny_chat_dits import deep_vae, qwen_vae, sana_transformer
from tests.support.builders.tiny_dits import one, two, vae
from tests.support.builders.tiny_texts import (
    WIDTH,
    byt5,
    clip,
    language_model,
    qwen3_vl,
    qwen_vl,
    t5,
)


def sana_sprint() -> Any:
    torch.manual_seed(40)
    transformer = sana_transformer(
        sample_size=32, qk_norm="rms_norm_across_heads", guidance_embeds=True
    )
    return diffusers.SanaSprintPipeline(
        transformer=transformer,
        scheduler=diffusers.SCMScheduler(),
        vae=deep_vae(),
        **one(language_model("Gemma2")),
    )


def bria() -> Any:
    torch.manual_seed(41)
    transformer = diffusers.BriaTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=[4, 4, 8],
    )
    return diffusers.BriaPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(4),
        **one(t5()),
    )


def hidream() -> Any:
    torch.manual_seed(42)
    llama = language_model("Llama", layers=2, model="ForCausalLM")
    transformer = diffusers.HiDreamImageTransformer2DModel(
        patch_size=4,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_channels=[WIDTH, WIDTH],
        text_emb_dim=2 * WIDTH,
        num_routed_experts=2,
        num_activated_experts=2,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(32, 32),
        llama_layers=[0, 1],
        force_inference_output=True,
    )
    third = t5()
    return diffusers.HiDreamImagePipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(4),
        **two(clip(projected=True, positions=248), clip(projected=True, positions=248)),
        text_encoder_3=third["encoder"],
        tokenizer_3=third["tokenizer"],
        text_encoder_4=llama["encoder"],
        tokenizer_4=llama["tokenizer"],
    )


def krea2() -> Any:
    torch.manual_seed(44)
    transformer = diffusers.Krea2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=32,
        timestep_embed_dim=16,
        text_hidden_dim=WIDTH,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=32,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 6, 6),
    )
    return diffusers.Krea2Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=qwen_vae(),
        **one(qwen3_vl()),
        text_encoder_select_layers=(1, 2),
    )


def hunyuan_image() -> Any:
    """HunyuanImage 2.1: Qwen2.5-VL, and ByT5 for what is to be written."""
    torch.manual_seed(45)
    transformer = diffusers.HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=(1, 1),
        text_embed_dim=WIDTH,
        text_embed_2_dim=WIDTH,
        rope_axes_dim=(8, 8),
    )
    small = diffusers.AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
        scaling_factor=0.476986,
        spatial_compression_ratio=8,
        sample_size=128,
    )
    guider = diffusers.AdaptiveProjectedMixGuidance
    return diffusers.HunyuanImagePipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        vae=small,
        **two(qwen_vl(layers=4), byt5()),
        guider=guider(adaptive_projected_guidance_start_step=1),
        ocr_guider=guider(adaptive_projected_guidance_start_step=1),
    )


def amused() -> Any:
    """Masked tokens of pictures in the place of noise."""
    torch.manual_seed(47)
    transformer = diffusers.UVit2DModel(
        hidden_size=16,
        cond_embed_dim=WIDTH,
        encoder_hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        micro_cond_encode_dim=2,
        micro_cond_embed_dim=10,
        block_out_channels=16,
        block_num_heads=2,
        codebook_size=32,
        vocab_size=33,
        sample_size=16,
    )
    vqvae = diffusers.VQModel(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        num_vq_embeddings=32,
        sample_size=32,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
    )
    return diffusers.AmusedPipeline(
        vqvae=vqvae,
        transformer=transformer,
        scheduler=diffusers.AmusedScheduler(mask_token_id=32),
        **one(clip(projected=True)),
    )
