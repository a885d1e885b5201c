"""Text-to-image transformers that read T5 or CLIP, with random weights, some 100 kB each."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler

from tests.support.builders.tiny_texts import WIDTH, bert, clip, t5


def vae(channels: int, levels: int = 2, width: int = 32) -> AutoencoderKL:
    """Two levels: 2 pixels a latent pixel."""
    return AutoencoderKL(
        block_out_channels=(width,) * levels,
        norm_num_groups=width,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=channels,
        sample_size=32,
        shift_factor=0.06,
        scaling_factor=1.5,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def two(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """A pipeline's parts of two encoders."""
    return {
        "text_encoder": first["encoder"],
        "tokenizer": first["tokenizer"],
        "text_encoder_2": second["encoder"],
        "tokenizer_2": second["tokenizer"],
    }


def one(text: dict[str, Any]) -> dict[str, Any]:
    """A pipeline's parts of one encoder."""
    return {"text_encoder": text["encoder"], "tokenizer": text["tokenizer"]}


def sd3() -> Any:
    """Stable Diffusion 3, all three encoders. The first one's projection is none: checkpoints in
    the original layout have none."""
    torch.manual_seed(3)
    first, second = clip(projected=True), clip(projected=True, width=2 * WIDTH)
    torch.nn.init.eye_(first["encoder"].text_projection.weight)
    third = t5(4 * WIDTH)
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=32,
        patch_size=1,
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=WIDTH,
        joint_attention_dim=4 * WIDTH,
        pooled_projection_dim=3 * WIDTH,
        out_channels=16,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(16),
        **two(first, second),
        text_encoder_3=third["encoder"],
        tokenizer_3=third["tokenizer"],
    )


def flux(kind: str = "FluxPipeline", **levels: int) -> Any:
    """Flux, guidance distilled."""
    torch.manual_seed(4)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    return getattr(diffusers, kind)(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(4, **levels),
        **two(clip(), t5()),
    )


def fill() -> Any:
    """Flux Fill reads the picture under its mask and the mask beside the latents."""
    pipe = flux("FluxFillPipeline")
    torch.manual_seed(10)
    config = dict(pipe.transformer.config) | {"in_channels": 48, "out_channels": 16}
    config["_use_default_values"] = []
    pipe.register_modules(transformer=diffusers.FluxTransformer2DModel.from_config(config))
    return pipe


def kontext() -> Any:
    """Flux Kontext: a picture may come with the words. It is looked at with a megapixel."""
    return flux("FluxKontextPipeline", levels=5, width=8)


def chroma() -> Any:
    torch.manual_seed(6)
    transformer = diffusers.ChromaTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        approximator_hidden_dim=WIDTH,
        approximator_layers=1,
        approximator_num_channels=16,
    )
    return diffusers.ChromaPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(4),
        **one(t5()),
    )


def pixart(kind: str = "PixArtSigmaPipeline") -> Any:
    """PixArt-Sigma or -alpha. Both draw at the nearest of their own sizes, 256 px, and resize."""
    torch.manual_seed(5)
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=32,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=4,
        in_channels=4,
        cross_attention_dim=WIDTH,
        caption_channels=WIDTH,
        out_channels=8,
        norm_type="ada_norm_single",
        use_additional_conditions=False,
    )
    return getattr(diffusers, kind)(
        transformer=transformer,
        scheduler=diffusers.DPMSolverMultistepScheduler(),
        vae=vae(4, levels=4),
        **one(t5()),
    )


def pixart_alpha() -> Any:
    return pixart("PixArtAlphaPipeline")


def auraflow() -> Any:
    torch.manual_seed(7)
    transformer = diffusers.AuraFlowTransformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=WIDTH,
        caption_projection_dim=WIDTH,
        out_channels=4,
        pos_embed_max_size=256,
    )
    return diffusers.AuraFlowPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(4),
        **one(t5(kind="UMT5")),
    )


def hunyuan() -> Any:
    """HunyuanDiT: BERT and T5."""
    torch.manual_seed(8)
    transformer = diffusers.HunyuanDiT2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=3,
        hidden_size=24,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        pooled_projection_dim=16,
        activation_fn="gelu-approximate",
    )
    return diffusers.HunyuanDiTPipeline(
        transformer=transformer,
        scheduler=diffusers.DDPMScheduler(),
        vae=vae(4, levels=4),
        **two(bert(), t5()),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def cogview3() -> Any:
    torch.manual_seed(9)
    transformer = diffusers.CogView3PlusTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=4,
        pos_embed_max_size=64,
        sample_size=16,
    )
    return diffusers.CogView3PlusPipeline(
        transformer=transformer,
        scheduler=diffusers.CogVideoXDDIMScheduler(),
        vae=vae(4),
        **one(t5()),
    )
