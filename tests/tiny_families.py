"""Text-to-image pipelines of many families with random weights, a few hundred kilobytes each.

Built on the spot with diffusers' own classes; nothing of a hub.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from gpu_worker.demo_model import shapes
from gpu_worker.demo_model.tokenizer import build_tokenizer
from tests import tiny_adapters, tiny_models

WIDTH = 32


def t5_tokenizer() -> T5TokenizerFast:
    """One token a word of the built-in model's vocabulary, and single letters."""
    words = [(f"\u2581{word}", -3.0) for word in shapes.vocabulary()]
    letters = [(letter, -6.0) for letter in "\u2581abcdefghijklmnopqrstuvwxyz0123456789,.()"]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0)]
    inner = Tokenizer(models.Unigram([*special, *words, *letters], unk_id=2))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    return T5TokenizerFast(
        tokenizer_object=inner,
        extra_ids=0,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=64,
    )


def t5() -> dict[str, Any]:
    """Tokenizer and encoder."""
    tokenizer = t5_tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=37, num_layers=1, num_heads=2
    )
    return {"tokenizer": tokenizer, "encoder": T5EncoderModel(config).eval()}


def clip(*, projected: bool = False) -> dict[str, Any]:
    """Tokenizer and encoder."""
    tokenizer = build_tokenizer(shapes.vocabulary())
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    return {"tokenizer": tokenizer, "encoder": kind(config).eval()}


def vae(channels: int) -> AutoencoderKL:
    """Two levels: 2 pixels a latent pixel."""
    return AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        sample_size=32,
        shift_factor=0.06,
        scaling_factor=1.5,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def sd1() -> Any:
    """Stable Diffusion 1."""
    return tiny_models.build()


def sd2() -> Any:
    """Stable Diffusion 2: velocity, linear projections, another width of heads."""
    pipe = tiny_models.build()
    config = dict(pipe.unet.config) | {"use_linear_projection": True, "attention_head_dim": (4, 8)}
    torch.manual_seed(2)
    pipe.unet = diffusers.UNet2DConditionModel.from_config(config)
    pipe.register_modules(unet=pipe.unet)
    pipe.scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction")
    return pipe


def xl() -> Any:
    """Stable Diffusion XL."""
    return tiny_adapters.build_xl()


def sd3() -> Any:
    """Stable Diffusion 3, all three encoders."""
    torch.manual_seed(3)
    first, second, third = clip(projected=True), clip(projected=True), t5()
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=32,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=WIDTH,
        joint_attention_dim=2 * WIDTH,
        pooled_projection_dim=2 * WIDTH,
        out_channels=4,
    )
    config = T5Config(
        vocab_size=len(third["tokenizer"]),
        d_model=2 * WIDTH,
        d_kv=8,
        d_ff=37,
        num_layers=1,
        num_heads=2,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(4),
        text_encoder=first["encoder"],
        tokenizer=first["tokenizer"],
        text_encoder_2=second["encoder"],
        tokenizer_2=second["tokenizer"],
        text_encoder_3=T5EncoderModel(config).eval(),
        tokenizer_3=third["tokenizer"],
    )


def flux() -> Any:
    """Flux, guidance distilled."""
    torch.manual_seed(4)
    first, second = clip(), t5()
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
    return diffusers.FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(4),
        text_encoder=first["encoder"],
        tokenizer=first["tokenizer"],
        text_encoder_2=second["encoder"],
        tokenizer_2=second["tokenizer"],
    )


def pixart() -> Any:
    """PixArt-Sigma."""
    torch.manual_seed(5)
    text = t5()
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
    return diffusers.PixArtSigmaPipeline(
        transformer=transformer,
        scheduler=diffusers.DPMSolverMultistepScheduler(),
        vae=vae(4),
        text_encoder=text["encoder"],
        tokenizer=text["tokenizer"],
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "StableDiffusionPipeline (1.x)": sd1,
    "StableDiffusionPipeline (2.x)": sd2,
    "StableDiffusionXLPipeline": xl,
    "StableDiffusion3Pipeline": sd3,
    "FluxPipeline": flux,
    "PixArtSigmaPipeline": pixart,
}
