"""Kandinsky's models with random weights: the last with T5, the others with a prior."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers
from diffusers import UNet2DConditionModel
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.support.builders.tiny_dits import one
from tests.support.builders.tiny_texts import WIDTH, chat_tokenizer, clip, t5
from tests.support.builders.tiny_unets import LEVELS


def movq(levels: int = 2) -> Any:
    return diffusers.VQModel(
        block_out_channels=(32,) * levels,
        down_block_types=("DownEncoderBlock2D",) * (levels - 1) + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * (levels - 1),
        latent_channels=4,
        num_vq_embeddings=12,
        norm_type="spatial",
        vq_embed_dim=4,
    )


def clip_vision() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            projection_dim=WIDTH,
        )
    )


def kandinsky22() -> Any:
    """Kandinsky 2.2 with its prior."""
    torch.manual_seed(33)
    text = clip(projected=True)
    unet = UNet2DConditionModel(
        **LEVELS,
        in_channels=4,
        out_channels=8,
        addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="image_proj",
        cross_attention_dim=WIDTH,
        resnet_time_scale_shift="scale_shift",
    )
    prior = diffusers.PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=16,
        embedding_dim=WIDTH,
        num_layers=1,
        num_embeddings=text["tokenizer"].model_max_length,
    )
    return diffusers.KandinskyV22CombinedPipeline(
        unet=unet,
        scheduler=diffusers.DDPMScheduler(prediction_type="epsilon"),
        movq=movq(),
        prior_prior=prior,
        prior_image_encoder=clip_vision(),
        prior_text_encoder=text["encoder"],
        prior_tokenizer=text["tokenizer"],
        prior_scheduler=diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample"
        ),
        prior_image_processor=CLIPImageProcessor(size=32, crop_size=32),
    )


def kandinsky21() -> Any:
    """Kandinsky 2.1 with its prior."""
    from diffusers.pipelines.kandinsky import MultilingualCLIP
    from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig

    torch.manual_seed(48)
    tokenizer = chat_tokenizer()
    text = clip(projected=True)
    encoder = MultilingualCLIP(
        MCLIPConfig(
            numDims=WIDTH,
            transformerDimensions=WIDTH,
            hidden_size=WIDTH,
            intermediate_size=37,
            num_attention_heads=2,
            num_hidden_layers=1,
            vocab_size=len(tokenizer),
            max_position_embeddings=128,
        )
    ).eval()
    unet = diffusers.UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        addition_embed_type="text_image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="text_image_proj",
        cross_attention_dim=WIDTH,
        resnet_time_scale_shift="scale_shift",
    )
    return diffusers.KandinskyCombinedPipeline(
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(),
        movq=movq(),
        prior_prior=diffusers.PriorTransformer(
            num_attention_heads=2,
            attention_head_dim=16,
            embedding_dim=WIDTH,
            num_layers=1,
            num_embeddings=text["tokenizer"].model_max_length,
        ),
        prior_image_encoder=clip_vision(),
        prior_text_encoder=text["encoder"],
        prior_tokenizer=text["tokenizer"],
        prior_scheduler=diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample"
        ),
        prior_image_processor=transformers.CLIPImageProcessor(size=32, crop_size=32),
    )


def kandinsky3() -> Any:
    torch.manual_seed(34)
    unet = diffusers.Kandinsky3UNet(
        in_channels=4,
        time_embedding_dim=4,
        groups=2,
        attention_head_dim=4,
        layers_per_block=2,
        block_out_channels=(16, 32),
        cross_attention_dim=4,
        encoder_hid_dim=WIDTH,
    )
    return diffusers.Kandinsky3Pipeline(
        unet=unet, scheduler=diffusers.DDPMScheduler(), movq=movq(4), **one(t5())
    )
