"""Tiny SDXL, refiners and inpainting models, ControlNets, LoRAs, textual inversions and so on.

Random weights, made on the spot with diffusers' own classes, and saved as people find them.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    EulerDiscreteScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tests.support.builders import tiny_models

LEVELS = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "attention_head_dim": 8,
}


def build_xl() -> StableDiffusionXLPipeline:
    """Two text encoders, as SDXL has them."""
    small = tiny_models.build()
    torch.manual_seed(1)
    text_config = CLIPTextConfig(**small.text_encoder.config.to_dict() | {"projection_dim": 32})
    unet = UNet2DConditionModel(
        sample_size=16,
        **LEVELS,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + 32,
        use_linear_projection=True,
    )
    return StableDiffusionXLPipeline(
        vae=small.vae,
        text_encoder=small.text_encoder,
        text_encoder_2=CLIPTextModelWithProjection(text_config),
        tokenizer=small.tokenizer,
        tokenizer_2=small.tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(steps_offset=1, timestep_spacing="leading"),
        add_watermarker=False,
    )


def build_refiner(score: bool = True) -> StableDiffusionXLImg2ImgPipeline:
    """For `build_xl`, as the published one: one text encoder, an aesthetic score. Its text encoder
    and VAE have other weights than the base's."""
    base = build_xl()
    torch.manual_seed(11)
    unet = UNet2DConditionModel(
        sample_size=16,
        **LEVELS,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * (5 if score else 6) + 32,
        use_linear_projection=True,
    )
    vae_config = dict(base.vae.config) | {"_use_default_values": []}
    return StableDiffusionXLImg2ImgPipeline(
        vae=AutoencoderKL.from_config(vae_config),
        text_encoder=None,
        text_encoder_2=CLIPTextModelWithProjection(base.text_encoder_2.config),
        tokenizer=None,
        tokenizer_2=base.tokenizer_2,
        unet=unet,
        scheduler=base.scheduler,
        requires_aesthetics_score=score,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


def build_inpainting() -> StableDiffusionInpaintPipeline:
    """A UNet of nine channels: latents, mask, masked latents."""
    small = tiny_models.build()
    torch.manual_seed(2)
    config = dict(small.unet.config) | {"in_channels": 9, "_use_default_values": []}
    parts = small.components | {"unet": UNet2DConditionModel.from_config(config)}
    return StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)


def save_controlnet(pipe: Any, folder: Path, seed: int = 3) -> None:
    """Its last layers are not zero, as a new one's would be: it has an effect."""
    torch.manual_seed(seed)
    net = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(16, 32))
    for name, weight in net.named_parameters():
        if "controlnet_" in name or "conv_out" in name:
            torch.nn.init.normal_(weight, std=0.3)
    net.save_pretrained(folder)


def save_lora(pipe: Any, file: Path, seed: int = 4, *, text: bool = False) -> None:
    """Rank two, on the attention layers of the UNet, and of the text encoders if `text`."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    torch.manual_seed(seed)
    layers: dict[str, Any] = {}
    modules = {"unet": (pipe.unet, ["to_q", "to_k", "to_v"])}
    for name in ("text_encoder", "text_encoder_2") if text else ():
        if getattr(pipe, name, None) is not None:
            modules[name] = (getattr(pipe, name), ["q_proj", "v_proj"])
    for name, (module, targets) in modules.items():
        config = LoraConfig(r=2, lora_alpha=2, target_modules=targets, init_lora_weights=False)
        module.add_adapter(config, adapter_name="made")
        found = get_peft_model_state_dict(module, adapter_name="made")
        layers[f"{name}_lora_layers"] = {key: 3 * value for key, value in found.items()}
    type(pipe).save_lora_weights(file.parent, weight_name=file.name, **layers)
    pipe.unload_lora_weights()


def save_embedding(file: Path, width: int = 32, vectors: int = 2, token: str = "<cat>") -> None:
    """One word of several vectors, in diffusers' layout."""
    torch.manual_seed(5)
    save_file({token: torch.randn(vectors, width)}, file)


def save_xl_embedding(file: Path) -> None:
    """A word for both text encoders."""
    torch.manual_seed(6)
    save_file({"clip_l": torch.randn(1, 32), "clip_g": torch.randn(1, 32)}, file)


def save_vae(folder: Path, latent_channels: int = 4) -> None:
    """Of the same shape as the tiny model's, with other weights."""
    torch.manual_seed(7)
    AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=latent_channels,
        sample_size=32,
    ).save_pretrained(folder)


def save_ip_adapter(pipe: Any, folder: Path) -> None:
    """`adapter.safetensors` and `image_encoder/`, in the layout of h94/IP-Adapter."""
    torch.manual_seed(8)
    width, embed = pipe.unet.config.cross_attention_dim, 16
    weights = {
        "image_proj.proj.weight": torch.randn(4 * width, embed),
        "image_proj.proj.bias": torch.randn(4 * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    number = 1
    for name in pipe.unet.attn_processors:
        if name.endswith("attn2.processor"):
            attention = pipe.unet.get_submodule(name.removesuffix(".processor"))
            size = attention.to_k.weight.shape
            weights[f"ip_adapter.{number}.to_k_ip.weight"] = torch.randn(size)
            weights[f"ip_adapter.{number}.to_v_ip.weight"] = torch.randn(size)
            number += 2
    folder.mkdir(parents=True)
    save_file(weights, folder / "adapter.safetensors")
    CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            projection_dim=embed,
        )
    ).save_pretrained(folder / "image_encoder")


def drawing(width: int = 64, height: int = 64) -> Image.Image:
    """A picture with some edges."""
    image = Image.new("RGB", (width, height), "navy")
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 5, height // 6, width // 2, height // 2), fill="red")
    draw.line((0, height, width, height // 3), fill="yellow", width=3)
    return image


def mask(width: int = 64, height: int = 64) -> Image.Image:
    """White, to be painted anew, in the middle."""
    image = Image.new("L", (width, height), 0)
    box = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    ImageDraw.Draw(image).rectangle(box, fill=255)
    return image


def put(folder: Path, image: Image.Image, **how: Any) -> str:
    """Put a picture where a job's pictures lie; its name in a request."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **how)
    return put_bytes(folder, buffer.getvalue())


def put_bytes(folder: Path, content: bytes) -> str:
    """Put an image file where a job's input images lie, and return its name in a request."""
    digest = hashlib.sha256(content).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / digest).write_bytes(content)
    return f"sha256:{digest}"
