"""Text-to-image UNets of many families with random weights, some 100 kB each."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import LCMScheduler, UNet2DConditionModel

from tests.support.builders import tiny_models, tiny_words
from tests.support.builders.tiny_dits import one, two, vae
from tests.support.builders.tiny_texts import WIDTH, clip, t5

LEVELS = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "attention_head_dim": 8,
    "sample_size": 16,
}


def sd1() -> Any:
    """Stable Diffusion 1."""
    return tiny_models.build()


def sd2() -> Any:
    """Stable Diffusion 2: velocity, linear projections, another width of heads."""
    pipe = tiny_models.build()
    config = dict(pipe.unet.config) | {"use_linear_projection": True, "attention_head_dim": (4, 8)}
    config["_use_default_values"] = []
    torch.manual_seed(2)
    pipe.unet = diffusers.UNet2DConditionModel.from_config(config)
    pipe.register_modules(unet=pipe.unet)
    pipe.scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction")
    return pipe


def sd1_pag() -> Any:
    """Stable Diffusion 1 with perturbed attention guidance."""
    return diffusers.StableDiffusionPAGPipeline(
        **sd1().components, requires_safety_checker=False, pag_applied_layers="mid"
    )


def xl(**scheduling: Any) -> Any:
    """Stable Diffusion XL. Its encoders differ in width: files in the original layout are told
    apart by that."""
    torch.manual_seed(29)
    return diffusers.StableDiffusionXLPipeline(
        vae=tiny_models.build().vae,
        **two(clip(), clip(projected=True, width=2 * WIDTH)),
        unet=UNet2DConditionModel(
            **LEVELS,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=3 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=8 * 6 + 2 * WIDTH,
            use_linear_projection=True,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(**{"timestep_spacing": "leading"} | scheduling),
        add_watermarker=False,
    )


def lightning() -> Any:
    """A distilled XL: its steps trail."""
    return xl(timestep_spacing="trailing")


def lcm() -> Any:
    """A latent consistency model: the guidance is an input of the UNet."""
    small = tiny_models.build()
    torch.manual_seed(30)
    config = dict(small.unet.config) | {"time_cond_proj_dim": 32, "_use_default_values": []}
    return diffusers.LatentConsistencyModelPipeline(
        **small.components
        | {"unet": UNet2DConditionModel.from_config(config), "scheduler": LCMScheduler()},
        requires_safety_checker=False,
    )


def kolors() -> Any:
    """A UNet as XL's that reads ChatGLM."""
    from diffusers.pipelines.kolors import ChatGLMModel, ChatGLMTokenizer
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig

    torch.manual_seed(31)
    tokenizer = ChatGLMTokenizer(str(_vocabulary()))
    encoder = ChatGLMModel(
        ChatGLMConfig(
            num_layers=2,
            padded_vocab_size=tokenizer.vocab_size,
            hidden_size=WIDTH,
            ffn_hidden_size=WIDTH,
            kv_channels=8,
            num_attention_heads=4,
            seq_length=256,
            multi_query_attention=True,
            multi_query_group_num=2,
            original_rope=True,
        )
    )
    for name, weight in encoder.named_parameters():  # made without any values
        torch.nn.init.constant_(weight, 1) if "norm" in name else torch.nn.init.normal_(weight)
    return diffusers.KolorsPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=vae(4),
        unet=UNet2DConditionModel(
            **LEVELS,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=8 * 6 + WIDTH,
            use_linear_projection=True,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(timestep_spacing="leading"),
    )


@functools.cache
def _vocabulary() -> Path:
    """A file of sentencepiece, learned on the spot: ChatGLM's tokenizer knows no other."""
    import sentencepiece

    folder = Path(tempfile.mkdtemp(prefix="sde-words-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    words = [" ".join(tiny_words.WORDS), "a large red circle on a blue background"] * 10
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=80,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return folder / "tokenizer.model"


def deepfloyd() -> Any:
    """IF, its first stage: pixels without a VAE."""
    torch.manual_seed(32)
    unet = UNet2DConditionModel(
        **LEVELS | {"sample_size": 32},
        in_channels=3,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        cross_attention_dim=WIDTH,
        encoder_hid_dim=WIDTH,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        resnet_time_scale_shift="scale_shift",
        time_embedding_type="positional",
        cross_attention_norm="group_norm",
    )
    return diffusers.IFPipeline(
        unet=unet,
        scheduler=diffusers.DDPMScheduler(variance_type="learned_range"),
        **one(t5()),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
